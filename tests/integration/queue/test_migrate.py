"""Migrations with a real server: all or nothing, once, and never over an unknown schema."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from shardd import __version__
from shardd.config import TRANSPORTS
from shardd.embedded import EmbeddedPostgres
from shardd.errors import DatabaseError
from shardd.queue.migrate import load_migrations, migrate, migration_status
from shardd.queue.releases import is_older
from tests.fixtures.postgres import Cluster, make_state_dir, remove_state_dir

PATIENCE = 30.0
"""Seconds after which a test fails because something hangs."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "0001_first.sql", "CREATE TABLE shardd.first (id integer);")
    write(tmp_path, "0002_second.sql", "CREATE TABLE shardd.second (id integer);\nINSERT INTO shardd.first VALUES (1);")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'shardd'")}


async def states(dsn: str, folder: Path) -> list[str]:
    return [one.state for one in (await migration_status(dsn, folder)).migrations]


async def test_the_package_s_migrations_make_an_empty_database_current(empty_dsn: str) -> None:
    assert not (await migration_status(empty_dsn)).current
    assert await migrate(empty_dsn) == [one.file_name for one in load_migrations()]
    assert (await migration_status(empty_dsn)).current
    assert {"migrations", "jobs", "devices"} <= tables(empty_dsn)
    assert await migrate(empty_dsn) == []


async def test_applies_what_is_missing_only(empty_dsn: str, folder: Path) -> None:
    second = (folder / "0002_second.sql").read_text()
    (folder / "0002_second.sql").unlink()
    assert await migrate(empty_dsn, folder) == ["0001_first.sql"]
    write(folder, "0002_second.sql", second)
    assert await states(empty_dsn, folder) == ["applied", "pending"]
    assert await migrate(empty_dsn, folder) == ["0002_second.sql"]
    assert await states(empty_dsn, folder) == ["applied", "applied"]


async def test_of_many_at_once_one_applies(empty_dsn: str, folder: Path) -> None:
    write(folder, "0003_slow.sql", "SELECT pg_sleep(0.2);")
    applied = await asyncio.gather(*(migrate(empty_dsn, folder) for _ in range(5)))
    assert sorted(applied, key=len) == [[], [], [], [], ["0001_first.sql", "0002_second.sql", "0003_slow.sql"]]


async def test_each_run_adds_the_transports_of_its_release_and_keeps_those_of_others(empty_dsn: str) -> None:
    await migrate(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM shardd.transports WHERE name = 'wablas'")
        connection.execute("INSERT INTO shardd.transports VALUES ('carrier_pigeon')")
        assert await migrate(empty_dsn) == []
        rows = connection.execute("SELECT name FROM shardd.transports").fetchall()
    assert {row[0] for row in rows} == {*TRANSPORTS, "carrier_pigeon"}


async def test_a_failure_names_its_line_and_changes_nothing(empty_dsn: str, folder: Path) -> None:
    write(folder, "0003_third.sql", "SELECT 1;\nSELECT 2;\nSELECT nothing FROM shardd.nowhere;\n")
    with pytest.raises(
        DatabaseError, match=r'^0003_third\.sql:3 cannot be applied, and nothing was changed: relation "shardd'
    ):
        await migrate(empty_dsn, folder)
    assert tables(empty_dsn) == set()
    assert await states(empty_dsn, folder) == ["pending", "pending", "pending"]


async def test_a_file_that_was_edited_afterwards_is_refused(empty_dsn: str, folder: Path) -> None:
    await migrate(empty_dsn, folder)
    write(folder, "0001_first.sql", "CREATE TABLE shardd.first (id bigint);")
    write(folder, "0003_third.sql", "CREATE TABLE shardd.third (id integer);")
    assert await states(empty_dsn, folder) == ["changed", "applied", "pending"]
    with pytest.raises(DatabaseError, match=r"0001_first\.sql is not the file that was applied .* restore the file"):
        await migrate(empty_dsn, folder)
    assert "third" not in tables(empty_dsn)


async def test_other_line_ends_are_the_same_file(empty_dsn: str, folder: Path) -> None:
    await migrate(empty_dsn, folder)
    second = folder / "0002_second.sql"
    second.write_bytes(second.read_bytes().replace(b"\n", b"\r\n"))
    assert await migrate(empty_dsn, folder) == []


async def test_a_database_of_a_newer_release_is_refused(empty_dsn: str, folder: Path) -> None:
    """Without a word in the file, which then counts as one on which nothing older can run."""
    await migrate(empty_dsn, folder, release="0.10.0")
    (folder / "0002_second.sql").unlink()
    (state,) = (await migration_status(empty_dsn, folder, release="0.9.0")).migrations[1:]
    assert (state.state, state.release, state.oldest_release) == ("unknown", "0.10.0", "0.10.0")
    told = (
        r"by a newer shardd, 0\.10\.0: 0002_second\.sql, applied at .* needs shardd 0\.10\.0 or newer, and this is 0\.9\.0\. "
        r"Upgrade shardd to 0\.10\.0, or restore a backup from before that$"
    )
    with pytest.raises(DatabaseError, match=told):
        await migrate(empty_dsn, folder, release="0.9.0")


@pytest.fixture
def newer(tmp_path: Path, folder: Path) -> Path:
    """The folder of release 0.3.0, beside that of 0.2.0, which can run on its schema; each counts its runs."""
    newer = tmp_path / "newer"
    newer.mkdir()
    for file in folder.glob("0*.sql"):
        write(newer, file.name, file.read_text())
    write(
        newer, "0003_third.sql", "-- Something new.\n-- oldest release: 0.2.0\nCREATE TABLE shardd.third (id integer);"
    )
    for one, release in ((folder, "0.2.0"), (newer, "0.3.0")):
        text = f"CREATE OR REPLACE FUNCTION shardd.of_release() RETURNS text LANGUAGE sql AS $$ SELECT '{release}' $$;"
        write(one, "definitions.sql", text)
    return newer


def value(dsn: str, query: LiteralString) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
    return None if row is None else row[0]


async def test_an_older_release_runs_on_what_a_newer_one_left_for_it_and_leaves_its_functions_alone(
    empty_dsn: str, folder: Path, newer: Path
) -> None:
    await migrate(empty_dsn, folder, release="0.2.0")
    assert await migrate(empty_dsn, newer, release="0.3.0") == ["0003_third.sql"]
    for _ in range(2):
        assert await migrate(empty_dsn, folder, release="0.2.0") == []
        assert value(empty_dsn, "SELECT shardd.of_release()") == "0.3.0"
    state = await migration_status(empty_dsn, folder, release="0.2.0")
    assert (state.current, state.defined_by) == (True, "0.3.0")
    third = state.migrations[2]
    assert (third.state, third.release, third.oldest_release) == ("newer", "0.3.0", "0.2.0")
    # The newest one goes on writing them, and so does one of the same release.
    assert await migrate(empty_dsn, newer, release="0.3.0") == []
    write(newer, "definitions.sql", (newer / "definitions.sql").read_text().replace("0.3.0", "0.3.1"))
    assert await migrate(empty_dsn, newer, release="0.3.1") == []
    assert value(empty_dsn, "SELECT shardd.of_release()") == "0.3.1"
    # One that came before what the file names cannot run on it.
    assert not (await migration_status(empty_dsn, folder, release="0.1.9")).current
    with pytest.raises(DatabaseError, match=r"0003_third\.sql, .* needs shardd 0\.2\.0 or newer, and this is 0\.1\.9"):
        await migrate(empty_dsn, folder, release="0.1.9")


async def test_an_older_release_leaves_functions_alone_that_came_without_a_migration(
    empty_dsn: str, folder: Path, newer: Path
) -> None:
    (newer / "0003_third.sql").unlink()
    await migrate(empty_dsn, newer, release="0.3.0")
    await migrate(empty_dsn, folder, release="0.2.0")
    assert value(empty_dsn, "SELECT shardd.of_release()") == "0.3.0"


@pytest.mark.parametrize("named", ["0.3", "soon", "", "0.3.0 or so"])
async def test_a_file_that_names_no_release_is_refused(empty_dsn: str, folder: Path, named: str) -> None:
    write(folder, "0003_third.sql", f"-- oldest release: {named}\nSELECT 1;")
    with pytest.raises(DatabaseError, match=rf"0003_third\.sql names the oldest release '{named}': write one such as"):
        await migrate(empty_dsn, folder)


def test_each_file_of_the_package_lets_this_release_run() -> None:
    for migration in load_migrations():
        assert not is_older(__version__, migration.oldest_release or __version__), migration.file_name


async def test_what_live_nodes_cannot_run_on_is_refused_before_anything_changes(
    empty_dsn: str, folder: Path, newer: Path
) -> None:
    nodes = """
        CREATE TABLE shardd.nodes (id text, name text, host text, version text, ttl float8, seen_at timestamptz DEFAULT now());
        INSERT INTO shardd.nodes VALUES ('1', 'old', 'alpha', '0.2.9', 30), ('2', 'new', 'beta', '0.4.0', 30),
            ('3', 'older', 'gamma', '0.2.1', 30);
        INSERT INTO shardd.nodes VALUES ('4', 'stopped', 'delta', '0.2.0', 30, '-infinity'),
            ('5', 'lost', 'epsilon', '0.2.0', 30, now() - interval '31 s')"""
    await migrate(empty_dsn, folder, release="0.2.0")
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(nodes)
    which = r"old on host alpha \(shardd 0\.2\.9\), older on host gamma \(shardd 0\.2\.1\)"
    for header, needed, fix in (
        ("", "0.4.0", "stop them first"),
        ("-- oldest release: 0.3.0\n", "0.3.0", "upgrade these to 0.3.0 first, or stop them"),
    ):
        write(newer, "0003_third.sql", f"{header}CREATE TABLE shardd.third (id integer);")
        needs = f"0003_third.sql needs shardd {needed} or newer on every node, and older ones run: {which}"
        told = f"^nothing was changed: {needs}. To go on, {fix};"
        with pytest.raises(DatabaseError, match=told):
            await migrate(empty_dsn, newer, release="0.4.0")
        assert value(empty_dsn, "SELECT shardd.of_release()") == "0.2.0"
    assert "third" not in tables(empty_dsn)
    # Not even a lock is asked for.
    write(
        newer,
        "0003_third.sql",
        "ALTER TABLE shardd.first ADD COLUMN more text; CREATE TABLE shardd.third (id integer);",
    )
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("LOCK TABLE shardd.first")
        with pytest.raises(DatabaseError, match=which):
            await migrate(empty_dsn, newer, release="0.4.0", waits=pytest.fail)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("DELETE FROM shardd.nodes WHERE id IN ('1', '3')")
    assert await migrate(empty_dsn, newer, release="0.4.0") == ["0003_third.sql"]


async def test_a_node_that_registers_meanwhile_is_seen(empty_dsn: str, folder: Path, newer: Path) -> None:
    await migrate(empty_dsn, folder, release="0.2.0")
    table = "CREATE TABLE shardd.nodes (id text, name text, host text, version text, ttl float8, seen_at timestamptz);"
    row = "INSERT INTO shardd.nodes VALUES ('1', 'late', 'alpha', '0.2.0', 30, now());"
    write(newer, "0003_third.sql", table + row)
    with pytest.raises(DatabaseError, match=r"older ones run: late on host alpha \(shardd 0\.2\.0\)"):
        await migrate(empty_dsn, newer, release="0.3.0")
    assert tables(empty_dsn) == {"migrations", "releases", "first", "second"}


async def test_a_migration_that_waits_for_a_table_lets_others_use_it(empty_dsn: str, folder: Path) -> None:
    await migrate(empty_dsn, folder)
    write(folder, "0003_third.sql", "ALTER TABLE shardd.first ADD COLUMN more text;")
    waits: asyncio.Queue[str] = asyncio.Queue()
    async with await psycopg.AsyncConnection.connect(empty_dsn, application_name="a report") as reader:
        await reader.execute("SELECT FROM shardd.first")
        migrating = asyncio.create_task(migrate(empty_dsn, folder, waits=waits.put_nowait))
        async with asyncio.timeout(PATIENCE):
            # On a slow machine the first tries are over before anybody has looked who is in the way.
            while "application 'a report'" not in (reason := await waits.get()):
                assert "a table is in use" in reason
        assert "a table is in use: a transaction that has been open for" in reason
        # It makes room: whoever comes is served while the report goes on.
        async with await psycopg.AsyncConnection.connect(empty_dsn) as other:
            await other.execute("INSERT INTO shardd.first VALUES (2)")
        await reader.rollback()
    assert await migrating == ["0003_third.sql"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0004_gap.sql", "0004_gap.sql should have the number 0003"),
        ("0002_twin.sql", "0002_.* should have the number 0003"),
        ("3_short.sql", "3_short.sql has no name like 0001_queue.sql: rename it"),
    ],
)
def test_names_that_cannot_be_ordered_are_refused(folder: Path, name: str, message: str) -> None:
    write(folder, name, "SELECT 1;")
    with pytest.raises(DatabaseError, match=message):
        load_migrations(folder)


async def test_a_stopped_server_is_told(postgres: Cluster, empty_dsn: str) -> None:
    await postgres.stop()
    try:
        with pytest.raises(DatabaseError, match=r"nothing answers at .*: is PostgreSQL running there"):
            await migrate(empty_dsn)
    finally:
        await postgres.start()


async def test_the_daemon_s_role_is_no_superuser_and_is_enough(dsn: str) -> None:
    state = await migration_status(dsn)
    assert (state.role, state.superuser, state.current) == ("shardd", False, True)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT body FROM shardd.jobs",
        "UPDATE shardd.jobs SET body = 'x'",
        "DELETE FROM shardd.jobs",
        "INSERT INTO shardd.jobs (device_id, recipient, body, claimed_epoch) VALUES ('d', '+4915112345678', 'x', 1)",
        "SELECT id FROM shardd.devices",
        "INSERT INTO shardd.devices (id, transport) VALUES ('d2', 'sandbox')",
        "SELECT id FROM shardd.archive",
        "SELECT version FROM shardd.migrations",
        "SELECT shardd.prepare_archive()",
        "CREATE TABLE shardd.mine (id integer)",
    ],
)
def test_a_producer_may_do_nothing_else(producer_dsn: str, statement: str) -> None:
    with psycopg.connect(producer_dsn) as producer, pytest.raises(psycopg.errors.InsufficientPrivilege):
        producer.execute(statement)


def test_a_producer_may_insert_jobs_and_read_outcomes(dsn: str, producer_dsn: str) -> None:
    with psycopg.connect(dsn) as daemon:
        daemon.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d', 'sandbox')")
    with psycopg.connect(producer_dsn) as producer:
        insert = "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d', '+4915112345678', 'x') RETURNING id"
        row = producer.execute(insert).fetchone()
        assert row is not None
        assert producer.execute("SELECT id, state FROM shardd.outcomes").fetchall() == [(row[0], "queued")]


@pytest.fixture
def lone_server() -> Iterator[EmbeddedPostgres]:
    """A cluster of its own: roles belong to a whole cluster."""
    folder = make_state_dir()
    yield EmbeddedPostgres(folder, settings={"fsync": "off"})
    remove_state_dir(folder)


async def test_the_producers_role_is_made_or_asked_for(lone_server: EmbeddedPostgres) -> None:
    dsn = await lone_server.start()
    superuser = await psycopg.AsyncConnection.connect(lone_server.dsn("postgres"), autocommit=True)
    may_insert = "SELECT has_column_privilege('shardd_producer', 'shardd.jobs', 'body', 'INSERT')"
    try:
        await superuser.execute("DROP ROLE producer")
        await superuser.execute("DROP ROLE shardd_producer")
        assert await migrate(dsn) != []
        state = await migration_status(dsn)
        assert (state.current, state.producer_role) == (True, False)

        await superuser.execute("ALTER ROLE shardd CREATEROLE")
        assert await migrate(dsn) == []
        assert (await migration_status(dsn)).producer_role
        assert await (await superuser.execute(may_insert)).fetchone() == (True,)
    finally:
        await superuser.close()
        await lone_server.stop()
