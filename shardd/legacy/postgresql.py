"""Reads the old system from PostgreSQL: one read-only snapshot, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql as composing

from shardd.errors import SourceError
from shardd.legacy.tables import Row, Source, Table
from shardd.postgres.dsn import server_of
from shardd.postgres.errors import describe_error, explain_refusal
from shardd.postgres.liveness import KEEPALIVE
from shardd.postgres.sql_files import query_text

CONNECT_TIMEOUT: Final = 10
ROWS_AT_ONCE: Final = 2000


class PostgresqlSource(Source):
    """A connection to a PostgreSQL server. Tables are looked up in the search path of the DSN."""

    def __init__(self, dsn: str) -> None:
        """Connect. Raises DatabaseError."""
        super().__init__(f"PostgreSQL at {server_of(dsn)}")
        self.dsn = dsn
        with self._errors():
            self._connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(
                dsn,
                autocommit=True,
                application_name="shardd import",
                client_encoding="utf8",
                connect_timeout=CONNECT_TIMEOUT,
                **KEEPALIVE,
            )
            self._connection.read_only = True
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.autocommit = False
            self._connection.execute(query_text("shardd.legacy", "postgresql_session"))

    def scan(self, *tables: Table) -> Iterator[tuple[Table, Row]]:
        """The rows of these tables, table by table."""
        for table in tables:
            with self._errors():
                there = self._connection.execute(
                    query_text("shardd.legacy", "postgresql_columns"), {"table": table.name}
                ).fetchall()
                if not there:
                    continue
                columns = table.choose([row[0] for row in there], self.name)
                self.found.add(table.name)
                statement = composing.SQL(query_text("shardd.legacy", "postgresql_rows")).format(
                    columns=composing.SQL(", ").join(
                        composing.SQL("{}::text").format(composing.Identifier(column)) for column in columns
                    ),
                    table=composing.Identifier(table.name),
                )
                # A named cursor stays in the server, which sends its rows in batches.
                with self._connection.cursor("shardd_import") as cursor:
                    cursor.itersize = ROWS_AT_ONCE
                    for values in cursor.execute(statement):
                        yield table, dict(zip(columns, values, strict=True))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise SourceError(
                f"{self.name}: {error.diag.message_primary}; grant SELECT on it to the user in the DSN"
            ) from error
        except psycopg.OperationalError as error:
            raise describe_error(explain_refusal(error), self.dsn) from error
        except psycopg.Error as error:
            raise describe_error(error, self.dsn) from error
