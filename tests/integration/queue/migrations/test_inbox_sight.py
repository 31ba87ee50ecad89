"""Who reads incoming messages, through real logins, in the inbox as in the events.

Members of shardd_inbox read all of them, bound producers those of their devices, and every other producer none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from psycopg import errors

from shardd.incoming import Incoming
from shardd.postgres.settings import settings_for
from shardd.queue.database import Database
from shardd.queue.inbox import Inbox
from tests.fixtures.producers import Connection, Tenants, seen
from tests.support.queue_rows import connect

EVENTS = ("shardd.events", "shardd.read_events(NULL, 1000, '{message.received}')")


def message(device_id: str) -> Incoming:
    return Incoming(device_id=device_id, message_id=f"A-{device_id}", addresses=("+6281234567890",), text="hi", at=5.0)


@pytest.fixture
async def inbox(tenants: Tenants) -> None:
    async with Database(tenants.dsn) as database:
        assert await Inbox(database).store([message(one) for one in ("a1", "a2", "b1")], {}) == 3
        assert await Inbox(database).store([message("a1")], {}) == 0, "told once"


def devices(session: Connection, what: str) -> list[str]:
    kind = "" if what == "shardd.inbox" else "WHERE kind = 'message.received'"
    return sorted(row[0] for row in session.execute(f"SELECT device_id FROM {what} {kind}"))  # type: ignore[call-overload]  # names of this test


@pytest.mark.usefixtures("inbox")
def test_a_bound_producer_reads_what_is_written_to_its_devices(tenants: Tenants, alpha: str, beta: str) -> None:
    tenants.bind(beta, groups=("ga",), campaigns=("ca",))
    with tenants.session(alpha) as session:
        for what in ("shardd.inbox", *EVENTS):
            assert devices(session, what) == ["a1"]
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT 1 FROM shardd.messages")
    with tenants.session(beta) as session:
        for what in ("shardd.inbox", *EVENTS):
            assert devices(session, what) == ["b1"], "a group or a campaign means jobs, not what is written to devices"


@pytest.mark.usefixtures("inbox")
@pytest.mark.parametrize("others_are_bound", [False, True])
def test_an_unbound_producer_reads_nothing_unless_it_is_a_member_of_shardd_inbox(
    tenants: Tenants, alpha: str, free: str, others_are_bound: bool
) -> None:
    if not others_are_bound:
        tenants.free(alpha)
        tenants.free("beta")
    with tenants.session(free) as session:
        with pytest.raises(errors.InsufficientPrivilege, match=f"{free} may not read the inbox") as refused:
            session.execute("EXPLAIN SELECT 1 FROM shardd.inbox")
        assert f"GRANT shardd_inbox TO {free}" in str(refused.value.diag.message_hint)
        for what in EVENTS:
            assert devices(session, what) == []
    reader = tenants.role("reader", "shardd_inbox")
    with tenants.session(reader) as session:
        for what in ("shardd.inbox", *EVENTS):
            assert devices(session, what) == ["a1", "a2", "b1"]
    only = tenants.role("only_reader", "shardd_inbox", producer=False)
    with tenants.session(only) as session:
        assert devices(session, "shardd.inbox") == ["a1", "a2", "b1"]
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT 1 FROM shardd.outcomes")


@pytest.mark.usefixtures("inbox")
def test_a_bound_member_of_shardd_inbox_still_reads_its_devices_only(
    tenants: Tenants, make_role: Callable[..., str]
) -> None:
    both = tenants.role("both", "shardd_inbox")
    with tenants.session(both) as session:
        plan = "PREPARE mine AS SELECT device_id FROM shardd.inbox"
        session.execute(plan)
        assert len(session.execute("EXECUTE mine").fetchall()) == 3
        tenants.bind(both, "a1")
        assert session.execute("EXECUTE mine").fetchall() == []
        session.execute("DISCARD PLANS")
        assert session.execute("EXECUTE mine").fetchall() == [("a1",)]
        assert seen(session, "shardd.inbox") == {1}


@pytest.mark.usefixtures("inbox")
def test_a_message_is_found_by_its_id_whatever_the_inbox_has(tenants: Tenants, alpha: str, free: str) -> None:
    with connect(tenants.dsn) as owner:
        owner.execute(
            "INSERT INTO shardd.messages (device_id, message_id, sender, own, status, kind, text, opt_out, written_at) "
            "SELECT 'a1', 'M' || n, '+6281234567890', false, false, 'text', 'x', false, now() FROM generate_series(1, 2000) n"
        )
        ids = dict(owner.execute("SELECT device_id, min(id) FROM shardd.messages GROUP BY device_id").fetchall())
    reader = tenants.role("reader", "shardd_inbox")
    only = tenants.role("only_reader", "shardd_inbox", producer=False)
    for role, sees in ((alpha, {"a1"}), (reader, {"a1", "a2", "b1"}), (only, {"a1", "a2", "b1"})):
        with tenants.session(role) as session:
            found = {device for device, number in ids.items() if seen(session, f"shardd.message({number})") == {number}}
            assert found == sees
            assert seen(session, "shardd.message(999999)") == set()
            whole = session.execute("SELECT * FROM shardd.message(%s)", [ids["a1"]]).fetchall()
            # What this session has read of the table: a row for each look, and none of 2000 others.
            ((scanned, fetched),) = session.execute(
                "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_all_tables WHERE relname = 'messages'"
            ).fetchall()
            assert scanned == 0
            assert fetched <= 4
            assert whole == session.execute("SELECT * FROM shardd.inbox WHERE id = %s", [ids["a1"]]).fetchall()
    with tenants.session(free) as session, pytest.raises(errors.InsufficientPrivilege, match="may not read the inbox"):
        session.execute("SELECT 1 FROM shardd.message(1)")


@pytest.mark.usefixtures("inbox")
def test_a_right_that_is_revoked_ends_within_an_open_session(tenants: Tenants) -> None:
    reader = tenants.role("reader", "shardd_inbox")
    with tenants.cluster.superuser() as admin, tenants.session(reader) as session:
        (first, *_) = sorted(seen(session, "shardd.inbox"))
        assert seen(session, f"shardd.message({first})") == {first}
        admin.execute(f"REVOKE shardd_inbox FROM {reader}".encode())
        with pytest.raises(errors.InsufficientPrivilege, match="may not read the inbox"):
            session.execute(f"SELECT 1 FROM shardd.message({first})".encode())


@pytest.mark.usefixtures("inbox")
def test_the_plan_of_a_look_at_one_message_is_an_index_probe(tenants: Tenants) -> None:
    """Whatever the planner believes of a table that nobody analysed: see test_plans."""
    with connect(tenants.dsn) as owner:
        body = owner.execute("SELECT prosrc FROM pg_proc WHERE proname = 'message'").fetchone()
        assert body is not None
        query = re.search(r"RETURN QUERY (SELECT .*);", body[0])
        assert query is not None
        text = query[1].replace("message.id", "$1").replace("bound", "$2")
        for setting, value in settings_for(owner.info.server_version // 10_000, 5.0).items():
            owner.execute("SELECT set_config(%s, %s, false)", [setting, value])
        owner.execute(f"PREPARE look (bigint, jsonb) AS {text}".encode())
        plan = owner.execute("EXPLAIN EXECUTE look (1, '{}')").fetchall()
    assert "Index Scan using messages_pkey" in plan[0][0]
