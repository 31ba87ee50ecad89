"""The pool with a real server: results, deadlines, restarts of the server, and error texts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from shardd.errors import DatabaseError, UnsureError
from shardd.postgres.sql_files import load_queries
from shardd.queue.database import Database, ListenEvent
from tests.fixtures.postgres import Cluster

HANG = 20.0  # seconds; no test waits that long, it only keeps a broken one from hanging


@contextlib.asynccontextmanager
async def frozen(pid: int) -> AsyncGenerator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def answers(database: Database) -> bool:
    """Whether a statement gets its answer."""
    return bool(await database.execute("applied_migrations"))


async def test_runs_named_queries(database: Database) -> None:
    assert await database.value("has_migrations") is True
    assert await database.rows(dict, "newest_id") == [{"coalesce": 0}]
    assert await database.column("heal_devices") == []
    assert await database.value("heal_devices") is None
    assert await database.execute("applied_migrations") >= 1


async def test_prepares_its_connections(dsn: str) -> None:
    database = Database(dsn, application_name="shardd/node-a", statement_timeout=2)
    async with database, database.connection() as connection:
        cursor = await connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN ('application_name', 'jit', 'plan_cache_mode', "
            "'statement_timeout', 'idle_in_transaction_session_timeout')"
        )
        settings = dict(await cursor.fetchall())
    assert settings == {
        "application_name": "shardd/node-a",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
        "statement_timeout": "1800",
        "idle_in_transaction_session_timeout": "4000",
    }


async def test_a_restart_of_the_server_is_not_noticed_by_the_next_query(database: Database, postgres: Cluster) -> None:
    await answers(database)
    await postgres.restart()
    assert await answers(database)


async def test_a_crash_of_the_server_is_not_noticed_by_the_next_query(database: Database, postgres: Cluster) -> None:
    await answers(database)
    await postgres.crash()
    assert await answers(database)


async def test_a_stopped_server_is_named_and_used_again_when_it_is_back(dsn: str, postgres: Cluster) -> None:
    async with Database(dsn, connect_timeout=1) as database:
        await answers(database)
        await postgres.stop()
        with pytest.raises(
            DatabaseError, match=r"nothing answers at .*/pg/\.s\.PGSQL\.5432: is PostgreSQL running there\?"
        ):
            await answers(database)
        await postgres.start()
        async with asyncio.timeout(HANG):
            while True:
                with contextlib.suppress(DatabaseError):
                    assert await answers(database)
                    break


async def test_a_connection_lost_in_the_middle_is_told_and_replaced(database: Database, superuser_dsn: str) -> None:
    async def ask() -> None:
        async with database.connection() as connection:
            with psycopg.connect(superuser_dsn, autocommit=True) as superuser:
                superuser.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
            await connection.execute("SELECT 1")

    with pytest.raises(DatabaseError, match="was lost"):
        await ask()
    assert await answers(database)


async def insist(work: Callable[[], Awaitable[object]]) -> None:
    """Again and again, until it fails: a reload of the server takes its moment."""
    async with asyncio.timeout(HANG):
        while True:
            await work()


@contextlib.contextmanager
def read_only(postgres: Cluster) -> Iterator[None]:
    """Tell the running server to be read-only, its open sessions included."""
    with postgres.superuser() as superuser:
        superuser.execute("SET default_transaction_read_only TO off")
        superuser.execute("ALTER SYSTEM SET default_transaction_read_only TO on")
        superuser.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            superuser.execute("ALTER SYSTEM RESET default_transaction_read_only")
            superuser.execute("SELECT pg_reload_conf()")


async def test_connections_that_became_read_only_are_closed(database: Database, postgres: Cluster) -> None:
    async def backend() -> int:
        async with database.connection() as connection:
            return connection.info.backend_pid

    listener = database.listen("greetings")
    async with asyncio.timeout(HANG):
        assert await anext(listener) == ListenEvent("connected")
        before = await backend()
        with read_only(postgres):
            with pytest.raises(DatabaseError, match=r"is read-only: .*name the primary server in the DSN"):
                await insist(lambda: database.execute("report_rival", {"rival": "x", "incarnation": uuid4()}))
            lost = await anext(listener)
            assert lost.kind == "lost"
            with pytest.raises(DatabaseError, match="is read-only"):
                await database.execute("applied_migrations")
        while (event := await anext(listener)).kind != "connected":
            assert event.kind == "lost"
        while True:
            with contextlib.suppress(DatabaseError):
                assert await answers(database)
                break
        assert await backend() != before
        await listener.aclose()  # type: ignore[attr-defined]


async def test_what_one_connection_learns_ends_the_idle_ones_too(dsn: str) -> None:
    async with asyncio.timeout(HANG), Database(dsn, max_size=2) as database:
        async with database.connection() as one, database.connection() as other:
            before = {one.info.backend_pid, other.info.backend_pid}

        async def write_nothing() -> None:
            async with database.connection() as connection:
                await connection.execute("SET default_transaction_read_only = on")
                await connection.execute("CREATE TABLE nobody_makes_it ()")

        with pytest.raises(DatabaseError, match=r"is read-only: .*name the primary server in the DSN"):
            await write_nothing()
        async with database.connection() as one, database.connection() as other:
            assert not before & {one.info.backend_pid, other.info.backend_pid}


async def test_a_listener_leaves_a_server_that_became_read_only_though_nobody_asked_it_anything(
    database: Database, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardd.queue.database._LISTEN_PING", 0.2)
    events = database.listen("greetings")
    async with asyncio.timeout(HANG):
        assert await anext(events) == ListenEvent("connected")
        with read_only(postgres):
            lost = await anext(events)
            assert (lost.kind, "is read-only" in lost.text) == ("lost", True)
        while (await anext(events)).kind != "connected":
            pass
        await events.aclose()


async def test_the_server_gives_up_a_slow_statement(dsn: str) -> None:
    async with Database(dsn, statement_timeout=0.3) as database:
        with pytest.raises(DatabaseError, match=r"did not finish a statement in time.*canceling statement"):
            async with database.connection(timeout=HANG) as connection:
                await connection.execute("SELECT pg_sleep(60)")
        assert await answers(database)


async def test_a_frozen_server_ends_no_later_than_the_deadline(dsn: str) -> None:
    async with asyncio.timeout(HANG), Database(dsn, statement_timeout=0.3) as database:
        with pytest.raises(DatabaseError, match=r"did not finish a statement in time.*no answer within 0\.3 s"):
            async with database.connection() as connection, frozen(connection.info.backend_pid):
                await connection.execute("SELECT 1")
        assert await answers(database)


async def test_a_task_that_is_cancelled_while_the_server_is_frozen_ends_too(dsn: str) -> None:
    async with asyncio.timeout(HANG), Database(dsn, statement_timeout=1) as database:
        async with database.connection() as connection:
            pid = connection.info.backend_pid
        async with frozen(pid):
            asking = asyncio.create_task(answers(database))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        assert asking.cancelled() or isinstance(asking.exception(), DatabaseError)
        assert await answers(database)


async def test_an_error_of_the_caller_passes_unchanged(database: Database) -> None:
    with pytest.raises(TimeoutError, match="mine"):
        async with database.connection():
            raise TimeoutError("mine")


async def test_a_used_up_pool_is_told(dsn: str) -> None:
    async with Database(dsn, max_size=1, connect_timeout=2.0) as database, database.connection(timeout=HANG):
        with pytest.raises(DatabaseError, match="no connection became free in time"):
            await answers(database)


async def test_a_host_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        database = Database(f"postgresql://shardd:secret@127.0.0.1:{port}/shardd", connect_timeout=0.3)
        with pytest.raises(DatabaseError, match=rf"^127\.0\.0\.1:{port} did not answer in time"):
            await database.open()


async def test_a_closed_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DatabaseError, match=rf"nothing answers at 127\.0\.0\.1:{port}: is PostgreSQL running there\?"):
        await Database(f"postgresql://shardd:secret@127.0.0.1:{port}/shardd").open()


async def test_an_unknown_database_is_told(postgres: Cluster) -> None:
    with pytest.raises(DatabaseError, match=r"no such database: create it \(createdb --owner=shardd nowhere\)"):
        await Database(postgres.dsn("nowhere")).open()


async def test_a_user_whom_the_server_does_not_let_in_is_told(postgres: Cluster) -> None:
    with pytest.raises(DatabaseError, match=r"does not accept this user: see its pg_hba\.conf"):
        await Database(postgres.dsn("postgres", "stranger")).open()


async def test_a_wrong_password_is_told_and_not_shown(postgres: Cluster, dbname: str) -> None:
    access = postgres.server.home.folder / "hba.conf"
    before = access.read_text()
    try:
        access.write_text(f"local all guest scram-sha-256\n{before}")
        with postgres.superuser() as superuser:
            superuser.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
            superuser.execute("SELECT pg_reload_conf()")
        dsn = postgres.dsn(dbname, "guest").replace("guest@", "guest:verysecret@")
        async with asyncio.timeout(HANG):
            while True:  # the reload is on its way
                with pytest.raises(DatabaseError) as caught:
                    await Database(dsn).open()
                if "password" in str(caught.value):
                    break
        assert "refuses the password of user guest: correct the DSN" in str(caught.value)
        assert "verysecret" not in f"{caught.value} {caught.value.__cause__}"
    finally:
        access.write_text(before)
        with postgres.superuser() as superuser:
            superuser.execute("SELECT pg_reload_conf()")
            superuser.execute("DROP ROLE IF EXISTS guest")


def test_a_dsn_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(DatabaseError, match="the DSN is neither a URL") as caught:
        Database("postgresql//shardd:verysecret@db/shardd")
    assert "verysecret" not in str(caught.value)


async def test_a_database_without_the_schema_is_told(empty_dsn: str) -> None:
    async with Database(empty_dsn) as database:
        with pytest.raises(DatabaseError, match="run `shardd db migrate`"):
            await database.execute("applied_migrations")


async def test_a_listener_says_when_it_may_have_missed_something(
    dsn: str, database: Database, postgres: Cluster
) -> None:
    events: AsyncIterator[ListenEvent] = database.listen("greetings", "farewells")
    async with asyncio.timeout(HANG):
        assert await anext(events) == ListenEvent("connected")
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("NOTIFY farewells, 'bye'")
        assert await anext(events) == ListenEvent("notified", "bye")

        await postgres.restart()
        lost = await anext(events)
        assert lost.kind == "lost"
        assert "was lost" in lost.text
        while (event := await anext(events)).kind != "connected":
            assert event.kind == "lost"
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("NOTIFY greetings")
        assert await anext(events) == ListenEvent("notified", "")
        await events.aclose()  # type: ignore[attr-defined]


def test_queries_are_read_with_their_names_and_without_their_descriptions(tmp_path: Path) -> None:
    file = tmp_path / "some.sql"
    file.write_text(
        "-- About this file.\n\n-- name: first\n-- 100 % described.\nSELECT 1;\n\n-- name: second\nSELECT\n    2;\n"
    )
    assert load_queries(file) == {"first": b"SELECT 1", "second": b"SELECT\n    2"}


def test_a_name_stands_for_one_query(tmp_path: Path) -> None:
    file = tmp_path / "some.sql"
    file.write_text("-- name: first\nSELECT 1;\n-- name: first\nSELECT 2;\n")
    with pytest.raises(ValueError, match=r"some\.sql: query first is there twice"):
        load_queries(file)


DEFERRED = """
CREATE TABLE t (id int);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.id < 0) EXECUTE FUNCTION refuse();
"""


async def test_a_transaction_is_unsure_only_if_the_answer_to_its_end_was_lost(empty_dsn: str) -> None:
    async def add(*numbers: int, freeze: str = "") -> None:
        async with contextlib.AsyncExitStack() as stack, database.transaction() as work:
            pid = await work.value("pid")
            for number in numbers:
                await work.execute("add", {"id": number})
                if freeze == f"after {number}":
                    await stack.enter_async_context(frozen(pid))

    with psycopg.connect(empty_dsn, autocommit=True) as owner:
        owner.execute(DEFERRED.encode())
        async with asyncio.timeout(HANG), Database(empty_dsn, statement_timeout=0.3) as database:
            database.queries = {"add": b"INSERT INTO public.t VALUES (%(id)s)", "pid": b"SELECT pg_backend_pid()"}
            await add(1)
            with pytest.raises(DatabaseError, match="no answer"):
                await add(2, 3, freeze="after 2")
            with pytest.raises(DatabaseError):
                await add(-1)
            with pytest.raises(UnsureError, match="no answer"):
                await add(4, freeze="after 4")
        assert owner.execute("SELECT id FROM t WHERE id < 4").fetchall() == [(1,)]
