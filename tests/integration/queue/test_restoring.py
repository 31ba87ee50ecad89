"""A database that is closed while it is restored."""

from __future__ import annotations

import psycopg
import pytest

from shardd.errors import UsageError
from shardd.queue.restoring import closed


def is_open(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute("SHOW default_transaction_read_only").fetchone() == ("off",)


async def test_it_is_opened_also_when_no_connection_lasted_as_long_as_the_restore(empty_dsn: str) -> None:
    async with closed(empty_dsn) as writing:
        assert (is_open(empty_dsn), is_open(writing)) == (False, True)
        with psycopg.connect(empty_dsn, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    assert is_open(empty_dsn)


async def test_an_error_leaves_it_closed_and_is_not_taken_for_one_of_the_database(empty_dsn: str) -> None:
    with pytest.raises(FileNotFoundError, match="pg_restore"):
        async with closed(empty_dsn):
            raise FileNotFoundError("no pg_restore")
    assert not is_open(empty_dsn)


async def test_a_database_of_shardd_s_is_not_overwritten(dsn: str) -> None:
    with pytest.raises(UsageError, match="nothing is overwritten"):
        async with closed(dsn):
            pass
    assert is_open(dsn)
