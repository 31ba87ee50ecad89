"""What errors say to do about them."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from shardd.embedded.server import _dsn
from shardd.postgres.errors import describe_error


@pytest.mark.parametrize(
    ("dsn", "first"),
    [
        (_dsn(Path("/var/lib/shardd/pg"), "shardd"), "if its restore was interrupted, see: shardd guide backup"),
        ("postgresql://shardd@db1.example,db2.example/shardd", "name the primary server in the DSN"),
    ],
)
@pytest.mark.parametrize(
    "error", [psycopg.errors.ReadOnlySqlTransaction(), psycopg.OperationalError("session is read-only")]
)
def test_of_a_read_only_server_the_likelier_cause_is_named_first(dsn: str, first: str, error: psycopg.Error) -> None:
    assert f" is read-only: {first}" in str(describe_error(error, dsn))


@pytest.mark.parametrize("error", [TimeoutError(), psycopg.OperationalError("connection timeout expired")])
def test_of_a_server_that_does_not_answer_only_possible_causes_are_named(error: Exception) -> None:
    local = str(describe_error(error, _dsn(Path("/var/lib/shardd/pg"), "shardd")))
    assert local.startswith("/var/lib/shardd/pg/.s.PGSQL.5432 did not answer in time: the server there is stopped or")
    assert "postgres.log in the state folder" in local
    assert "host" not in local
    far = str(describe_error(error, "postgresql://shardd@db1.example/shardd"))
    assert far.startswith("db1.example:5432 did not answer in time: is it the right host, and does a firewall let")
