"""Fixtures: old systems in a real PostgreSQL and a real MariaDB, and the dumps that their own programs make of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.fix_postgres import Cluster
from tests.legacy.mariadb import MariaDb

SCHEMAS = Path(__file__).with_name("legacy")
Fields = Mapping[str, Any]


class OldPostgresql:
    """An old system in PostgreSQL."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.database = cluster.create_database()
        self.dsn = cluster.dsn(self.database)
        self.execute((SCHEMAS / "postgresql.sql").read_text())

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)

    def add(self, table: str, rows: Iterable[Fields]) -> None:
        with psycopg.connect(self.dsn) as connection:
            for row in rows:
                statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, row)),
                    sql.SQL(", ").join(sql.Placeholder() * len(row)),
                )
                connection.execute(statement, list(row.values()))

    def dump(self, file: Path, *options: str) -> Path:
        """By the pg_dump of the server's own version."""
        beside = Path(f"/proc/{self._cluster.server.pid}/exe").resolve().with_name("pg_dump")
        program = beside if beside.exists() else shutil.which("pg_dump")
        assert program is not None, "pg_dump is missing: apt-get install postgresql-client"
        subprocess.run([program, f"--dbname={self.dsn}", f"--file={file}", *options], check=True)
        return file

    def drop(self) -> None:
        self._cluster.drop_database(self.database)


class OldMysql:
    """An old system in MariaDB."""

    def __init__(self, server: MariaDb, database: str) -> None:
        self.server = server
        self.database = database
        server.execute(f"DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}")
        server.execute((SCHEMAS / "mysql.sql").read_text(), database)

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.database)

    def execute(self, statements: str) -> None:
        self.server.execute(statements, self.database)

    def add(self, table: str, rows: Iterable[Fields]) -> None:
        self.execute(
            "".join(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(map(_literal, row.values()))});\n"
                for row in rows
            )
        )

    def dump(self, file: Path, *options: str) -> Path:
        file.write_bytes(self.server.dump(self.database, "--routines", *options))
        return file


def _literal(value: Any) -> str:
    """Hexadecimal, so that the fixture's quoting is not what is tested."""
    if value is None:
        return "NULL"
    return f"CONVERT(0x{str(value).encode().hex()} USING utf8mb4)" if str(value) else "''"


@pytest.fixture
def old_postgresql(postgres: Cluster) -> Iterator[OldPostgresql]:
    """Empty tables of an old system, in a database of this test's own."""
    old = OldPostgresql(postgres)
    yield old
    old.drop()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """One server for the whole run."""
    server = MariaDb()
    yield server
    server.stop()


@pytest.fixture
def old_mysql(mariadb: MariaDb) -> OldMysql:
    """Empty tables of an old system."""
    return OldMysql(mariadb, "old")
