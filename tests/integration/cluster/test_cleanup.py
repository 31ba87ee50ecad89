"""Retention on a real database: what is old enough is deleted, what is still needed stays, and both are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from shardd.config.inbox import InboxConfig
from shardd.config.sections import RetentionConfig
from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.supervisor.cluster.cleanup import RETENTION_CHUNK as CHUNK
from shardd.supervisor.cluster.cleanup import delete_old
from tests.support.queue_rows import add_devices, claim, connect, insert_jobs, take_epoch

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


FIXED = {"migrations", "releases", "settings", "transports", "device_states", "country_codes", "pseudonym_key"}
WORKED_OFF = {"jobs", "order_groups", "lane_waits", "forgetting", "webhook_failures", "deleted_media"}
KEPT_FOR_A_TIME = {
    *(
        "archive",
        "dedupe_keys",
        "revocations",
        "device_accounts",
        "contacts",
        "device_days",
        "campaign_days",
        "messages",
        "outbox",
        "nodes",
        "epochs",
        "acts",
        "acts_under_way",
    ),
}
ONE_EACH = {
    *(
        "devices",
        "device_groups",
        "device_group_members",
        "device_visits",
        "pairings",
        "pairing_links",
        "leases",
        "campaigns",
    ),
    *(
        "library_refusals",
        "webhook_cursors",
        "producers",
        "producer_devices",
        "producer_groups",
        "producer_campaigns",
        "api_tokens",
    ),
    "lives",
}
"""For each thing that an operator or a program makes, and each restore."""
GROWING = {"opt_outs", "opt_out_log", "same_person", "forgotten"}
"""With the people who are written to or opt out: a promise to them depends on each row."""


@pytest.fixture
def keep() -> RetentionConfig:
    return RetentionConfig()


@pytest.fixture
def owner(dsn: str) -> Any:
    add_devices(dsn, "a")
    with connect(dsn) as connection:
        yield connection


def month_of(moment: datetime) -> str:
    return f"archive_{moment:%Y_%m}"


def add_month(owner: psycopg.Connection[Any], moment: datetime) -> datetime:
    """A partition for the month of a moment; returns the month's first day."""
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (first + 32 * DAY).replace(day=1)
    statement = sql.SQL("CREATE TABLE {} PARTITION OF shardd.archive FOR VALUES FROM ({}) TO ({})").format(
        sql.Identifier("shardd", month_of(first)), sql.Literal(first), sql.Literal(after)
    )
    owner.execute(statement)
    return first


def finished(
    owner: psycopg.Connection[Any], state: str, settled_at: datetime, count: int = 1, **fields: Any
) -> list[int]:
    """Ids of jobs that ended like this, then."""
    jobs = insert_jobs(owner, "a", count, **fields)
    owner.execute("SELECT shardd.end_jobs(%s, %s, NULL, NULL)", [jobs, state])
    owner.execute("UPDATE shardd.archive SET settled_at = %s WHERE id = ANY (%s)", [settled_at, jobs])
    owner.execute("UPDATE shardd.dedupe_keys SET created_at = %s WHERE job_id = ANY (%s)", [settled_at, jobs])
    return jobs


def left(owner: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in owner.execute("SELECT id FROM shardd.archive ORDER BY id")]


def partitions(owner: psycopg.Connection[Any]) -> set[str]:
    rows = owner.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'shardd.archive'::regclass"
    )
    return {row[0] for row in rows}


async def test_a_month_goes_as_a_whole_when_its_last_day_is_old_enough(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    old, partly = NOW - 200 * DAY, NOW - 90 * DAY
    for moment in (old, partly):
        add_month(owner, moment)
    finished(owner, "sent", old, 5)
    finished(owner, "failed", old, 5)
    # Older than the config says, but its month is not over for as long.
    stays = finished(owner, "sent", partly - timedelta(seconds=1))
    stays += finished(owner, "sent", NOW)
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == stays
    assert month_of(old) not in partitions(owner)
    assert month_of(partly) in partitions(owner)


async def test_jobs_in_doubt_stay_until_they_are_decided(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    old = add_month(owner, NOW - 200 * DAY) + 3 * DAY
    finished(owner, "sent", old, 10)
    doubts = finished(owner, "in_doubt", old, 3)
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == doubts
    assert month_of(old) in partitions(owner), "they stand where jobs of that time belong"
    told = owner.execute("SELECT count(*) FROM shardd.outbox WHERE job_id = ANY (%s)", [doubts]).fetchone()
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == doubts
    assert owner.execute("SELECT count(*) FROM shardd.outbox WHERE job_id = ANY (%s)", [doubts]).fetchone() == told, (
        "keeping a job is no news"
    )

    owner.execute("UPDATE shardd.archive SET state = 'failed' WHERE id = %s", [doubts[0]])
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == doubts[1:]
    owner.execute("UPDATE shardd.archive SET state = 'sent' WHERE id = ANY (%s)", [doubts[1:]])
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == []
    assert month_of(old) not in partitions(owner)


async def test_an_epoch_stays_as_long_as_it_decides_something(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    """Of a lease, a claim or a doubt, whose journal may still come back; the last one of a shard, too."""
    jobs = Jobs(database)
    insert_jobs(owner, "a", 3)
    epochs, incarnations = [], []
    for _ in range(6):
        incarnations.append(uuid4())
        epochs.append(await take_epoch(database, incarnation=incarnations[-1]))
        if len(epochs) <= 3:
            await claim(jobs, epochs[-1], "a")
    finished_one, doubtful, claimed, unused, recent, last = epochs
    (row,) = owner.execute("SELECT id FROM shardd.jobs WHERE claimed_epoch = %s", [doubtful]).fetchall()
    owner.execute("UPDATE shardd.jobs SET claimed_epoch = NULL WHERE claimed_epoch = %s", [finished_one])
    owner.execute("UPDATE shardd.jobs SET claimed_epoch = NULL WHERE claimed_epoch = %s", [doubtful])
    owner.execute("SELECT shardd.end_jobs(%s, 'in_doubt', 'the node was lost', 'node')", [[row[0]]])
    owner.execute("UPDATE shardd.archive SET claimed_epoch = %s", [doubtful])
    owner.execute("UPDATE shardd.epochs SET started_at = now() - interval '1 year' WHERE epoch < %s", [last])
    await delete_old(database, keep, InboxConfig())
    # The one before the last was superseded just now.
    assert epochs_left(owner) == [doubtful, claimed, recent, last]
    assert [doubt.incarnation for doubt in await jobs.find_doubts([row[0]], [incarnations[1]])] == [incarnations[1]]

    owner.execute("UPDATE shardd.archive SET state = 'failed'")
    owner.execute("UPDATE shardd.jobs SET claimed_epoch = NULL")
    await delete_old(database, keep, InboxConfig())
    assert epochs_left(owner) == [recent, last]
    owner.execute("UPDATE shardd.epochs SET started_at = now() - interval '1 year'")
    await delete_old(database, keep, InboxConfig())
    assert epochs_left(owner) == [last]
    assert await take_epoch(database) == last + 1, "never issued again"
    assert unused not in epochs_left(owner)


def epochs_left(owner: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in owner.execute("SELECT epoch FROM shardd.epochs ORDER BY epoch")]


def test_every_table_is_bounded_or_known_to_grow(owner: psycopg.Connection[Any]) -> None:
    """The guide (operate, Retention) tells operators what grows: a new table must say what bounds it."""
    tables = owner.execute(
        "SELECT relname FROM pg_class "
        "WHERE relnamespace = 'shardd'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
    ).fetchall()
    assert {name for (name,) in tables} <= FIXED | WORKED_OFF | KEPT_FOR_A_TIME | ONE_EACH | GROWING


async def test_what_holds_back_an_order_group_stays(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    old = add_month(owner, NOW - 200 * DAY) + 3 * DAY
    finished(owner, "sent", old, order_group="waits")
    (failed,) = finished(owner, "failed", old, order_group="waits")
    finished(owner, "failed", old, order_group="alone")
    (held,) = insert_jobs(owner, "a", order_group="waits")
    assert owner.execute("SELECT held FROM shardd.jobs WHERE id = %s", [held]).fetchone() == (True,)
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == [failed]
    owner.execute("DELETE FROM shardd.jobs WHERE id = %s", [held])
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == []


async def test_a_time_without_a_month_of_its_own_is_deleted_in_chunks(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    old = NOW - 200 * DAY
    assert month_of(old) not in partitions(owner)
    finished(owner, "sent", old, CHUNK + 10)
    doubts = finished(owner, "in_doubt", old, 2)
    young = finished(owner, "sent", NOW - 89 * DAY)
    events = owner.execute("SELECT count(*) FROM shardd.outbox WHERE kind = 'job.retried'").fetchone()
    await delete_old(database, keep, InboxConfig())
    assert left(owner) == sorted(doubts + young)
    assert owner.execute("SELECT count(*) FROM shardd.outbox WHERE kind = 'job.retried'").fetchone() == events


async def test_a_dedupe_key_outlives_its_job(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    old = add_month(owner, NOW - 200 * DAY) + 3 * DAY
    finished(owner, "sent", old, dedupe_key="old")
    finished(owner, "in_doubt", old, dedupe_key="in doubt")
    (live,) = insert_jobs(owner, "a", dedupe_key="live")
    owner.execute("UPDATE shardd.dedupe_keys SET created_at = %s WHERE job_id = %s", [old, live])
    finished(owner, "sent", NOW, dedupe_key="young")

    def keys() -> set[str]:
        return {row[0] for row in owner.execute("SELECT key FROM shardd.dedupe_keys")}

    await delete_old(database, RetentionConfig(dedupe_keys=365 * DAY.total_seconds()), InboxConfig())
    assert keys() == {"old", "in doubt", "live", "young"}
    assert insert_jobs(owner, "a", dedupe_key="old") == [], "the job is forgotten, the key is not"
    await delete_old(database, keep, InboxConfig())
    assert keys() == {"in doubt", "live", "young"}


async def test_many_keys_are_examined_at_once(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    """All of one moment, and more than a chunk of them must stay: the look goes on behind them."""
    old = NOW - 200 * DAY
    owner.execute(
        "INSERT INTO shardd.dedupe_keys (key, job_id, created_at) "
        "SELECT 'k' || lpad(n::text, 6, '0'), n, %s FROM generate_series(1, %s) n",
        [old, 2 * CHUNK],
    )
    (live,) = insert_jobs(owner, "a")
    owner.execute("UPDATE shardd.dedupe_keys SET job_id = %s WHERE job_id <= %s", [live, CHUNK + 1])
    await delete_old(database, keep, InboxConfig())
    assert owner.execute("SELECT count(*) FROM shardd.dedupe_keys").fetchone() == (CHUNK + 1,)


async def test_contacts_and_counts_of_old_days_go(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    owner.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
    owner.execute("INSERT INTO shardd.campaigns (id) VALUES ('c')")
    for days in (364, 366):
        owner.execute(
            "INSERT INTO shardd.contacts VALUES ('g', %s::text, 'a', now() - make_interval(days => %s))", [days, days]
        )
    for days in (399, 402):
        owner.execute(
            "INSERT INTO shardd.device_days (device_id, day, sent, last_at) "
            "VALUES ('a', current_date - %s::integer, 1, now())",
            [days],
        )
        owner.execute("INSERT INTO shardd.campaign_days VALUES ('c', 'a', current_date - %s::integer, 1)", [days])
    await delete_old(database, keep, InboxConfig())
    assert owner.execute("SELECT address FROM shardd.contacts").fetchall() == [("364",)]
    assert owner.execute("SELECT current_date - day FROM shardd.device_days").fetchall() == [(399,)]
    assert owner.execute("SELECT current_date - day FROM shardd.campaign_days").fetchall() == [(399,)]


async def test_an_order_group_without_jobs_is_deleted_unless_a_producer_adds_to_it(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig, dsn: str
) -> None:
    insert_jobs(owner, "a", order_group="live")
    finished(owner, "sent", NOW, order_group="done")
    finished(owner, "sent", NOW, order_group="busy")
    with psycopg.connect(dsn) as producer:
        (added,) = insert_jobs(producer, "a", order_group="busy")
        await delete_old(database, keep, InboxConfig())
        names = {row[0] for row in owner.execute("SELECT name FROM shardd.order_groups")}
        assert names == {"live", "busy"}
        producer.commit()
    (again,) = insert_jobs(owner, "a", order_group="done")
    rows = owner.execute("SELECT id, held FROM shardd.jobs WHERE id = ANY (%s)", [[added, again]]).fetchall()
    assert sorted(rows) == [(added, False), (again, False)]


async def test_settling_waits_for_no_retention(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig, dsn: str
) -> None:
    """A reader that takes its time keeps the month; retention gives up quickly, because all settling waits behind it."""
    old = add_month(owner, NOW - 200 * DAY)
    finished(owner, "sent", old)
    owner.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
    owner.execute("INSERT INTO shardd.contacts VALUES ('g', '1', 'a', now() - interval '366 days')")
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT count(*) FROM shardd.archive")
        with pytest.raises(DatabaseError, match="lock timeout"):
            await delete_old(database, keep, InboxConfig())
    assert month_of(old) in partitions(owner)
    assert owner.execute("SELECT FROM shardd.contacts").fetchall() == [], "it keeps nothing else from being forgotten"
    await delete_old(database, keep, InboxConfig())
    assert month_of(old) not in partitions(owner)


async def test_a_key_in_an_open_transaction_does_not_keep_others_from_being_deleted(
    dsn: str, producer_dsn: str, owner: psycopg.Connection[Any], keep: RetentionConfig
) -> None:
    long_ago = NOW - 900 * DAY
    for key in ("used", "idle"):
        finished(owner, "sent", long_ago, dedupe_key=key)
    owner.execute("DELETE FROM shardd.archive")
    left_keys = "SELECT key FROM shardd.dedupe_keys ORDER BY key"
    async with Database(dsn, statement_timeout=2.0) as database:
        with psycopg.connect(producer_dsn) as producer:
            insert_jobs(producer, "a", dedupe_key="used")
            await delete_old(database, keep, InboxConfig())
            assert owner.execute(left_keys).fetchall() == [("used",)]
            producer.rollback()
        await delete_old(database, keep, InboxConfig())
    assert owner.execute(left_keys).fetchall() == []


async def test_a_node_goes_when_it_was_silent_for_as_long_and_nothing_of_it_is_open(
    owner: psycopg.Connection[Any], database: Database, keep: RetentionConfig
) -> None:
    nodes = ("silent", "stopped", "leases", "sends", "doubts", "young")
    for name in nodes:
        owner.execute(
            "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl, started_at, seen_at) "
            "VALUES (%s, %s, gen_random_uuid(), 4, 'x', 30, %s, %s)",
            [
                name,
                name,
                NOW - (1 if name == "young" else 91) * DAY,
                "-infinity" if name in ("stopped", "young") else NOW - 91 * DAY,
            ],
        )
        owner.execute(
            "INSERT INTO shardd.epochs (shard, node, incarnation) SELECT 1, name, incarnation FROM shardd.nodes WHERE id = %s",
            [name],
        )
    epoch = "(SELECT epoch FROM shardd.epochs WHERE node = %s)"
    owner.execute(
        f"INSERT INTO shardd.leases (shard, epoch, node_id, expires_at) SELECT 1, {epoch}, 'leases', now()", ["leases"]
    )
    (job,) = insert_jobs(owner, "a")
    owner.execute(f"UPDATE shardd.jobs SET claimed_epoch = {epoch}, claimed_at = now() WHERE id = %s", ["sends", job])
    finished(owner, "in_doubt", NOW)
    owner.execute(f"UPDATE shardd.archive SET claimed_epoch = {epoch}", ["doubts"])
    await delete_old(database, keep, InboxConfig())
    left_over = {row[0] for row in owner.execute("SELECT id FROM shardd.nodes")}
    assert left_over == {"leases", "sends", "doubts", "young"}
