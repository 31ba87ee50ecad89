"""Ways in which a producer's login could become more than that. Each was open once, or is a sibling of one that was.

The producer may create temporary objects and objects in `public` here, as PostgreSQL 14 lets everybody: what keeps it out is the
schema itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.migrate import migrate
from shardd.queue.sessions import SessionAdmin
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.fixtures.postgres import Cluster
from tests.support.daemon import Daemon, Producer
from tests.support.queue_rows import add_devices, insert_jobs

Connection = psycopg.Connection[Any]

EVIL = """
CREATE FUNCTION pg_temp.evil(v text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
    IF current_user <> session_user THEN EXECUTE 'GRANT ALL ON ALL TABLES IN SCHEMA shardd TO producer'; END IF;
    RETURN true;
END$$
"""
JOB = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('a', '+628123456', 'x')"
LOOT = "SELECT settings FROM shardd.devices"


@pytest.fixture
def victim(dsn: str, superuser_dsn: str, dbname: str) -> str:
    """A database with something to steal."""
    with psycopg.connect(superuser_dsn, autocommit=True) as superuser:
        superuser.execute(f"GRANT TEMPORARY ON DATABASE {dbname} TO producer")  # type: ignore[call-overload]  # ours
        superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    add_devices(dsn, "a", settings='{"token": "secret"}')
    return dsn


@pytest.fixture
def producer(victim: str, producer_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(producer_dsn, autocommit=True) as connection:
        yield connection


def gained_nothing(connection: Connection) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute(LOOT)
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute("DELETE FROM shardd.jobs")


def trigger_functions(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [
            row[0]
            for row in connection.execute(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'shardd'::regnamespace AND prorettype = 'trigger'::regtype"
            )
        ]


def test_no_trigger_function_can_be_put_on_a_table_of_ones_own(victim: str, producer: Connection) -> None:
    producer.execute("CREATE TEMP TABLE o (id integer)")
    names = trigger_functions(victim)
    assert {"admit_job", "admit_opt_out", "announce_jobs", "record_ends", "record_retries", "protect_outbox"} <= set(
        names
    )
    for name in names:
        with pytest.raises(errors.InsufficientPrivilege):
            producer.execute(f"CREATE TRIGGER x BEFORE INSERT ON o FOR EACH ROW EXECUTE FUNCTION shardd.{name}()")  # type: ignore[call-overload]  # names from the catalogue


def test_a_domain_on_a_temporary_table_runs_nothing_as_the_owner(producer: Connection) -> None:
    producer.execute(EVIL)
    producer.execute("CREATE DOMAIN pg_temp.d AS text CHECK (pg_temp.evil(VALUE))")
    producer.execute(
        "CREATE TEMP TABLE o (recipient text, source text, note text, words text, address pg_temp.d, device_id text, "
        "said_at timestamptz, created_by text, created_at timestamptz)"
    )
    with pytest.raises(errors.InsufficientPrivilege):
        producer.execute("CREATE TRIGGER x BEFORE INSERT ON o FOR EACH ROW EXECUTE FUNCTION shardd.admit_opt_out()")
    producer.execute(
        "INSERT INTO o (recipient, source, created_by, created_at) VALUES ('+4915199999999', 'producer', 'x', now())"
    )
    gained_nothing(producer)


TYPES = (
    "text",
    "boolean",
    "bool",
    "jsonb",
    "integer",
    "int4",
    "numeric",
    "timestamptz",
    "bigint",
    "int8",
    "date",
    "record",
    "name",
)


@pytest.mark.parametrize("path", ["pg_temp, pg_catalog", "pg_catalog", "pg_temp", ""])
def test_temporary_types_do_not_take_the_place_of_real_ones(producer: Connection, path: str) -> None:
    """With `search_path = pg_catalog`, temporary types are looked at before it: a DECLARE of `text` would be the attacker's."""
    producer.execute(EVIL)
    for name in TYPES:
        with contextlib.suppress(errors.SyntaxError):
            producer.execute(f'CREATE DOMAIN pg_temp."{name}" AS pg_catalog.text CHECK (pg_temp.evil(VALUE))')  # type: ignore[call-overload]  # the names above
    producer.execute("SELECT set_config('search_path', %s, false)", [path])
    fields = {
        "device_id": "a", "recipient": "+628123456", "body": "hi {name}", "variables": '{"name": "Ada"}', "metadata": '{"a": 1}',
        "order_group": "g", "dedupe_key": "k",
    }  # fmt: skip
    statement = f"INSERT INTO shardd.jobs ({', '.join(fields)}) VALUES ({', '.join(['%s'] * len(fields))})"
    producer.execute(statement, list(fields.values()))  # type: ignore[call-overload]  # the names above
    producer.execute("INSERT INTO shardd.opt_outs (recipient, note) VALUES ('+628123456', 'x')")
    producer.execute(JOB)  # ended at once, with an event
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('mine')")
    producer.execute("SELECT * FROM shardd.read_events(NULL, 100)").fetchall()
    for refused in ("'nobody', '+628123456', 'x'", "'a', 'x', 'x'", "'a', '+628123456', ''"):
        with pytest.raises(errors.IntegrityError):
            producer.execute(f"INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ({refused})")  # type: ignore[call-overload]  # above
    gained_nothing(producer)


def test_a_function_is_not_compiled_with_the_callers_types_first(producer: Connection) -> None:
    """PL/pgSQL compiles a function once for each session: whoever could call it first would choose what its types mean."""
    producer.execute(EVIL)
    producer.execute("CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.evil(VALUE))")
    producer.execute("SET search_path = pg_temp, pg_catalog")
    for call in (
        "shardd.resolve('x', NULL, 'jobs')", "shardd.read_number('x')", "shardd.render_body('{a}', '{}')",
        "shardd.check_json('details', '[]', 1)", "shardd.check_content(NULL::shardd.jobs)", "shardd.check_terms(NULL)",
    ):  # fmt: skip
        with pytest.raises(errors.InsufficientPrivilege):
            producer.execute(f"SELECT {call}")  # type: ignore[call-overload]  # the calls above
    with pytest.raises(errors.CheckViolation):
        producer.execute("SELECT shardd.refuse('a', 'b', 'c')")
    producer.execute(JOB)
    gained_nothing(producer)


SHADOWS = """
CREATE FUNCTION public.evil() RETURNS void LANGUAGE plpgsql AS $$BEGIN
    IF current_user <> 'producer' THEN EXECUTE 'GRANT ALL ON ALL TABLES IN SCHEMA shardd TO producer'; END IF;
END$$;
CREATE FUNCTION public.format(a text, b text, c text, d text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN pg_catalog.format(a, b, c, d); END$$;
CREATE FUNCTION public.format(a text, b text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN pg_catalog.format(a, b); END$$;
CREATE FUNCTION public.join(a date, b text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN a::text OPERATOR(pg_catalog.||) b; END$$;
CREATE OPERATOR public.|| (LEFTARG = date, RIGHTARG = text, FUNCTION = public.join);
CREATE FUNCTION public.plus(a date, b interval) RETURNS timestamp LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN a OPERATOR(pg_catalog.+) b; END$$;
CREATE FUNCTION public.make_interval(months integer) RETURNS interval LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN pg_catalog.make_interval(months => months); END$$;
CREATE FUNCTION public.to_char(a date, b text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN pg_catalog.to_char(a::timestamp, b); END$$;
CREATE FUNCTION public.left(a varchar, b integer) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.evil(); RETURN pg_catalog.left(a, b); END$$;
CREATE FUNCTION public.count_all() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN PERFORM public.evil(); RETURN 1; END$$;
"""


async def test_what_stands_in_public_is_not_met_by_the_owner(
    victim: str, producer: Connection, database: Database
) -> None:
    """prepare_archive had no search_path: its next run, at a start, made any login the owner."""
    for statement in SHADOWS.split(";\nCREATE"):
        producer.execute(statement if statement.lstrip().startswith("CREATE") else f"CREATE{statement}")  # type: ignore[call-overload]  # above
    with psycopg.connect(victim, autocommit=True) as owner:
        owner.execute("SET search_path = public, pg_catalog")
        months = owner.execute("SELECT relname FROM pg_class WHERE relname ~ '^archive_[0-9]{4}_[0-9]{2}$'").fetchall()
        for (month,) in months:
            owner.execute(f'DROP TABLE shardd."{month}"')  # type: ignore[call-overload]  # a name from the catalogue
        owner.execute("SELECT shardd.prepare_archive()")
        owner.execute("SELECT * FROM shardd.forget_month(now())")
        owner.execute("SELECT shardd.purge_events(interval '1 day', 1, 1), shardd.reposition_restored_events()")
        insert_jobs(owner, "a", 2, order_group="g", dedupe_key=None)
        owner.execute("SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs), 'cancelled', NULL, NULL)")
    gained_nothing(producer)


async def test_a_migration_meets_nothing_in_public(cluster: Cluster) -> None:
    name = cluster.create_database()
    try:
        with cluster.superuser(name) as superuser:
            superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
            superuser.execute(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")  # type: ignore[call-overload]  # ours
        with psycopg.connect(cluster.dsn(name, "producer"), autocommit=True) as producer:
            for statement in SHADOWS.split(";\nCREATE"):
                producer.execute(statement if statement.lstrip().startswith("CREATE") else f"CREATE{statement}")  # type: ignore[call-overload]  # above
            producer.execute(
                "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS "
                "$$BEGIN PERFORM public.evil(); RETURN pg_catalog.now(); END$$"
            )
            await migrate(cluster.dsn(name))
            add_devices(cluster.dsn(name), "a")
            gained_nothing(producer)
    finally:
        cluster.drop_database(name)


def test_nobody_ends_anothers_job_through_a_transition_table(dsn: str, victim: str, producer: Connection) -> None:
    (job,) = insert_jobs(dsn, "a")
    producer.execute(
        "CREATE TEMP TABLE added (id bigint, opted_out boolean, scheduled boolean, device_id text, lane text, ord bigint)"
    )
    with pytest.raises(errors.InsufficientPrivilege):
        producer.execute(
            "CREATE TRIGGER x AFTER INSERT ON added REFERENCING NEW TABLE AS added FOR EACH STATEMENT "
            "EXECUTE FUNCTION shardd.announce_jobs()"
        )
    for call in ("shardd.end_jobs(ARRAY[1::bigint], 'cancelled', NULL, NULL)", "shardd.purge_events('1 s', 0, 1000)",
                 "shardd.reposition_restored_events()", "shardd.forget_month(now())", "shardd.prepare_archive()",
                 "shardd.announce_events()",
                 "shardd.opted_out('628123456', 'marketing', false)"):  # fmt: skip
        with pytest.raises(errors.InsufficientPrivilege):
            producer.execute(f"SELECT {call}")  # type: ignore[call-overload]  # the calls above
    assert producer.execute("SELECT state FROM shardd.outcomes WHERE id = %s", [job]).fetchall() == [("queued",)]


def test_no_event_is_forged_or_deleted(producer: Connection) -> None:
    producer.execute("SELECT set_config('shardd.maintains_outbox', 'yes', false)")
    for statement in (
        "DELETE FROM shardd.outbox", "UPDATE shardd.outbox SET kind = 'job.sent'",
        "INSERT INTO shardd.outbox (kind) VALUES ('x')", "INSERT INTO shardd.archive (id) VALUES (1)",
        "DELETE FROM shardd.events", "INSERT INTO shardd.events (kind) VALUES ('x')",
        "DELETE FROM shardd.opt_outs", "DELETE FROM shardd.opt_out_log",
        "INSERT INTO shardd.opt_out_log (address, kind, source, created_by) VALUES ('628', 'taken_back', 'x', 'x')",
    ):  # fmt: skip
        with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
            producer.execute(statement)  # type: ignore[call-overload]  # the statements above


@pytest.mark.parametrize(
    "statement",
    [
        "SET ROLE shardd",
        "SET SESSION AUTHORIZATION shardd",
        "SET session_replication_role = replica",
        "ALTER FUNCTION shardd.admit_job() RESET search_path",
        "CREATE TEMP TABLE mine () INHERITS (shardd.jobs)",
        "CREATE TABLE public.mine (device text REFERENCES shardd.devices (id) ON DELETE CASCADE)",
        "CREATE RULE mine AS ON INSERT TO shardd.jobs DO ALSO DELETE FROM shardd.devices",
        "CREATE POLICY mine ON shardd.jobs USING (true)",
        "CREATE TABLE public.mine (job shardd.jobs)",
        "CREATE TEMP TABLE mine (month shardd.archive)",
        "ALTER DATABASE postgres SET search_path = pg_temp",
        "ALTER ROLE shardd SET search_path = public",
        "LOCK TABLE shardd.migrations",
        "LOCK TABLE shardd.archive IN SHARE UPDATE EXCLUSIVE MODE",
        "SELECT name FROM shardd.order_groups FOR UPDATE",
        "LOCK TABLE shardd.jobs IN ROW EXCLUSIVE MODE",
    ],
)
def test_a_producer_is_refused(producer: Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege), producer.transaction():
        producer.execute(statement)  # type: ignore[call-overload]  # the statements above


async def test_no_lock_that_everybody_can_take_holds_anything_up(
    victim: str, producer: Connection, database: Database, make_daemon: Callable[..., Daemon]
) -> None:
    """All advisory locks that an earlier release took, held by a login that may do nothing."""
    for key in ("shardd.migrations", "shardd.prepare_archive", "shardd.order_group:g"):
        producer.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
    for key in ("shardd.announce_jobs", "shardd.announce_events"):
        producer.execute("SELECT pg_advisory_lock(hashtext(%s))", [key])
    async with asyncio.timeout(30):
        assert await migrate(victim) == []
        await Jobs(database).prepare_archive()
    with psycopg.connect(victim, autocommit=True) as owner:
        owner.execute("SET statement_timeout = '10s'")
        insert_jobs(owner, "a", order_group="g")
        owner.execute("SELECT * FROM shardd.forget_month(now())")
        owner.execute("SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs), 'cancelled', NULL, NULL)")
        assert owner.execute("SELECT count(*) FROM shardd.events WHERE kind = 'job.cancelled'").fetchone() == (1,)
        insert_jobs(owner, "a", order_group="h")
    daemon = make_daemon()
    await daemon.start()
    assert await Producer(victim).until_finished(daemon, 2) == {"cancelled": 1, "sent": 1}


async def test_a_producer_that_reads_for_long_keeps_nothing_from_starting(
    victim: str, producer_dsn: str, make_daemon: Callable[..., Daemon]
) -> None:
    """To make the next month of the archive waits for whoever has read it."""
    with psycopg.connect(victim, autocommit=True) as owner:
        (month,) = owner.execute(
            "SELECT max(relname) FROM pg_class WHERE relname ~ '^archive_[0-9]{4}_[0-9]{2}$'"
        ).fetchone()  # type: ignore[misc]  # max has a row
        owner.execute(f'DROP TABLE shardd."{month}"')  # type: ignore[call-overload]  # a name from the catalogue
    daemon = make_daemon()
    with psycopg.connect(producer_dsn) as reader:
        reader.execute("SELECT count(*) FROM shardd.outcomes")
        Producer(producer_dsn).execute(JOB)
        await daemon.start()
        await Producer(victim).until_finished(daemon, 1)
    assert "months of the archive not prepared" in daemon.log_file.read_text()


def test_a_month_that_somebody_reads_is_not_waited_for(victim: str, producer_dsn: str) -> None:
    """Everybody who settles would wait behind it."""
    with psycopg.connect(victim, autocommit=True) as owner, psycopg.connect(producer_dsn) as reader:
        (month,) = owner.execute(
            "SELECT max(relname) FROM pg_class WHERE relname ~ '^archive_[0-9]{4}_[0-9]{2}$'"
        ).fetchone()  # type: ignore[misc]  # max has a row
        owner.execute(f'DROP TABLE shardd."{month}"')  # type: ignore[call-overload]  # a name from the catalogue
        reader.execute("SELECT count(*) FROM shardd.outcomes")
        owner.execute("SET statement_timeout = '30s'")
        with pytest.raises(errors.LockNotAvailable):
            owner.execute("SELECT shardd.prepare_archive()")


async def test_no_lock_that_everybody_can_take_keeps_sessions_from_being_paired(
    victim: str, producer: Connection, database: Database
) -> None:
    for key in ("shardd.pairing:a", "shardd.number:628111"):
        producer.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
    producer.execute("SELECT pg_advisory_lock(hashtext('shardd session store'))")
    with psycopg.connect(victim) as owner:
        owner.execute("UPDATE shardd.devices SET transport = 'whatsapp', settings = '{}' WHERE id = 'a'")
    admin = SessionAdmin(database)
    async with asyncio.timeout(60):
        async with admin.hold_pairing("a", patience=30) as ours:
            assert ours
            assert await admin.bind("a", "628111:1@s.whatsapp.net", old=None)
        # Twice at once, as two hosts that start together do.
        store = make_conninfo(victim, options="-c search_path=sessions")
        await asyncio.gather(prepare_store(store), prepare_store(store))
