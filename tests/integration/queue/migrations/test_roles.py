"""The rights of each role: a producer inserts jobs and reads outcomes and nothing else; the daemon is not a superuser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.fixtures.postgres import TEMPLATE, Cluster

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def module_dbname(cluster: Cluster) -> Iterator[str]:
    name = cluster.create_database(TEMPLATE)
    with psycopg.connect(cluster.dsn(name)) as connection:
        connection.execute(
            "INSERT INTO shardd.devices (id, transport, session) VALUES ('a', 'whatsapp', '628:1@s.whatsapp.net')"
        )
        connection.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('a', '+628123456', 'secret')")
    yield name
    cluster.drop_database(name)


@pytest.fixture
def producer(module_dbname: str, cluster: Cluster) -> Iterator[Connection]:
    with psycopg.connect(cluster.dsn(module_dbname, "producer"), autocommit=True) as connection:
        yield connection


def test_a_producer_inserts_and_reads_what_became_of_it(producer: Connection) -> None:
    (job,) = producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, kind, body, media, file_name, mime_type, details, priority, run_at, "
        "max_attempts, on_doubt, dedupe_key, reference) VALUES ('a', '+628123456', 'text', 'x', NULL, NULL, NULL, NULL, 1, "
        "now(), 3, 'retry', 'k', 'r') RETURNING id"
    ).fetchone()  # type: ignore[misc]  # RETURNING has a row
    assert producer.execute("SELECT state, reference FROM shardd.outcomes WHERE id = %s", [job]).fetchall() == [
        ("queued", "r")
    ]


COLUMNS = ["device_id", "recipient", "body", "media", "dedupe_key", "claimed_epoch", "attempt"]
OURS = ["id", "scheduled", "due_at", "attempt", "failures", "claimed_epoch", "claimed_at", "error", "created_at", "ord"]
TABLES = [
    "devices", "device_days", "nodes", "lives", "epochs", "leases", "archive", "archive_other", "dedupe_keys", "migrations",
    "releases",
]  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM shardd.jobs",
        *(f"SELECT {column} FROM shardd.jobs" for column in COLUMNS),
        "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('a', '+628123456', 'x') RETURNING body",
        *(
            f"INSERT INTO shardd.jobs (device_id, recipient, body, {column}) VALUES ('a', '+628123456', 'x', DEFAULT)"
            for column in OURS
        ),
        "UPDATE shardd.jobs SET body = 'x'",
        "UPDATE shardd.jobs SET priority = 100",
        "DELETE FROM shardd.jobs",
        "TRUNCATE shardd.jobs",
        "SELECT id FROM shardd.jobs FOR UPDATE",
        *(f"SELECT * FROM shardd.{table}" for table in TABLES),
        *(f"DELETE FROM shardd.{table}" for table in TABLES),
        "INSERT INTO shardd.devices (id, transport) VALUES ('mine', 'sandbox')",
        "UPDATE shardd.devices SET session = NULL",
        "INSERT INTO shardd.dedupe_keys (key, job_id) VALUES ('x', 1)",
        "SELECT shardd.prepare_archive()",
        "SELECT nextval('shardd.jobs_id_seq')",
        "SELECT setval('shardd.jobs_id_seq', 1)",
        "CREATE TABLE shardd.mine (id integer)",
        "CREATE FUNCTION shardd.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER TABLE shardd.jobs DISABLE TRIGGER admit_job",
        "DROP TABLE shardd.jobs",
        "DROP VIEW shardd.outcomes",
        "CREATE TRIGGER mine AFTER INSERT ON shardd.jobs EXECUTE FUNCTION shardd.wake_router()",
        "SET ROLE shardd",
        "CREATE ROLE mine",
        "COPY shardd.jobs (body) TO STDOUT",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)  # fmt: skip
def test_a_producer_may_do_nothing_else(producer: Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        producer.execute(statement)  # type: ignore[call-overload]  # the statements above


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shardd.outcomes SET state = 'sent'",
        "INSERT INTO shardd.outcomes (id) VALUES (1)",
        "DELETE FROM shardd.outcomes",
    ],
)
def test_the_view_is_for_reading(producer: Connection, statement: str) -> None:
    with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
        producer.execute(statement)  # type: ignore[call-overload]  # the statements above


def test_a_producer_cannot_lock_the_table_against_the_router(producer: Connection) -> None:
    with pytest.raises(errors.InsufficientPrivilege), producer.transaction():
        producer.execute("LOCK shardd.jobs IN EXCLUSIVE MODE")


def test_a_producer_sees_ids_and_no_more_of_the_live_table(producer: Connection) -> None:
    assert producer.execute("SELECT count(id) FROM shardd.jobs").fetchone()[0] >= 1  # type: ignore[index]  # count has a row


def test_the_view_shows_no_text_of_a_message(producer: Connection) -> None:
    cursor = producer.execute("SELECT * FROM shardd.outcomes LIMIT 0")
    names = {column.name for column in cursor.description or ()}
    assert not names & {"body", "media", "details", "session", "settings", "proxy", "dedupe_key"}


def test_a_producer_cannot_reach_the_daemons_rights_through_its_functions(producer: Connection) -> None:
    """The triggers run as their owner: whatever the caller's search_path says must not reach them."""
    with producer.transaction(force_rollback=True):
        producer.execute("CREATE TEMP TABLE hits (what text)")
        producer.execute(
            "CREATE FUNCTION pg_temp.length(text) RETURNS integer LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO hits VALUES (current_user); RETURN 1; END $$"
        )
        producer.execute("SET LOCAL search_path = pg_temp, pg_catalog")
        producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('a', '+628123456', 'x')")
        assert producer.execute("SELECT * FROM hits").fetchall() == []


@pytest.mark.parametrize("role", ["shardd", "producer", "shardd_producer"])
def test_no_role_of_shardd_is_mighty(module_dbname: str, cluster: Cluster, role: str) -> None:
    with cluster.superuser(module_dbname) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s",
            [role],
        ).fetchone()
    assert row == (False, False, False, False, False)


def test_the_daemon_owns_what_it_works_with(module_dbname: str, cluster: Cluster) -> None:
    with psycopg.connect(cluster.dsn(module_dbname)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("shardd",)
        rows = connection.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'shardd'::regnamespace"
        ).fetchall()
    assert rows == [("shardd",)]
