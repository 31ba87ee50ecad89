"""A newer release adds columns to tables while nodes of this one have prepared statements and open connections."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from psycopg import pq

from shardd.errors import DatabaseError
from shardd.queue.columns import FRAGMENTS, QUERIES
from shardd.queue.database import Database
from shardd.queue.queries import Record
from tests.support.next_release import GROW
from tests.support.queue_rows import connect
from tests.support.statements import numbered

PREPARED_AFTER = 5
"""Executions after which psycopg prepares a statement, as the pool has it."""
UTILITY = re.compile(r"(?:--.*\n)*(?:LOCK|CREATE|ALTER|BEGIN|COMMIT|DROP|SET|ANALYZE)\b")


def describe(connection: psycopg.Connection[Any], name: str) -> str:
    """Why the server would not run a prepared statement; empty: it would."""
    return connection.pgconn.describe_prepared(name.encode()).error_message.decode()


@pytest.fixture
def prepared(dsn: str) -> Any:
    with connect(dsn) as connection:
        names = [name for name in QUERIES if name not in FRAGMENTS and not UTILITY.match(QUERIES[name].decode())]
        for name in names:
            result = connection.pgconn.prepare(name.encode(), numbered(name)[0].encode())
            assert result.status == pq.ExecStatus.COMMAND_OK, (name, result.error_message)
        yield connection, names


def test_no_prepared_statement_of_the_queue_depends_on_columns_that_it_does_not_name(
    dsn: str, prepared: tuple[psycopg.Connection[Any], list[str]]
) -> None:
    connection, names = prepared
    connection.pgconn.prepare(b"all of it", b"SELECT * FROM shardd.devices")
    with connect(dsn) as newer:
        newer.execute(GROW)
    # So the server would say it.
    assert "cached plan must not change result type" in describe(connection, "all of it")
    assert {name: why for name in names if (why := describe(connection, name))} == {}


async def test_a_prepared_statement_whose_result_changed_fails_once(dsn: str, database: Database) -> None:
    database.queries = {"all": b"SELECT * FROM shardd.transports ORDER BY name LIMIT 1"}
    for _ in range(4 * (PREPARED_AFTER + 1)):  # on each connection of the pool
        (row,) = await database.rows(Record, "all")
    with connect(dsn) as newer:
        newer.execute(GROW)
    with pytest.raises(DatabaseError, match="cached plan must not change result type"):
        await database.rows(Record, "all")
    # The other connections have it, too, and are not used any more.
    assert await database.rows(Record, "all") == [row | {"mood": None}]
