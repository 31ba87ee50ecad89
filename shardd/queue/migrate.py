"""Bringing a database to the schema of this release.

Migrations are the files `shardd/queue/migrations/NNNN_name.sql`. All that are missing are applied in one transaction under
a lock that only the owner of the schema can take: either the database is at this release afterwards or nothing happened, and
of two supervisors that start at once the second waits and then finds nothing to do. A file's SHA-256 is kept, because a file
that was edited after it was applied would make databases that differ with nobody knowing. Each time, at the end, `transports.sql`
adds the transports that this release defines, `revokes.sql` takes from everybody what nobody was meant to have, and `grants.sql`,
once the producers' role exists, gives them their rights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal

import psycopg
from psycopg.rows import TupleRow

from shardd.config import TRANSPORTS
from shardd.errors import DatabaseError
from shardd.postgres.errors import describe_error
from shardd.postgres.servers import Connection, Servers, Terms
from shardd.postgres.sql_files import queries_of

TRANSPORTS_FILE: Final = "transports.sql"
REVOKES: Final = "revokes.sql"
GRANTS: Final = "grants.sql"
NO_PRODUCER_ROLE: Final = (
    "the role shardd_producer does not exist, and this user may not create it: let a superuser run "
    "`CREATE ROLE shardd_producer NOLOGIN`, then run `shardd db migrate` again to give it its rights"
)

_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_CONNECT_TIMEOUT: Final = 10.0
_STATEMENT_TIMEOUT: Final = 3600.0  # seconds: a migration of a large table is given its time
_LOCK_TIMEOUT: Final = "60s"


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: int
    name: str
    text: str

    @property
    def file_name(self) -> str:
        """As it stands in the folder."""
        return f"{self.version:04}_{self.name}.sql"

    @property
    def sha256(self) -> str:
        """Of the text, so that a checkout with other line ends is the same file."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class MigrationState:
    """Where one migration stands: `changed` and `unknown` keep shardd from migrating."""

    version: int
    name: str
    state: Literal["applied", "pending", "changed", "unknown"]
    applied_at: datetime | None


@dataclass(frozen=True)
class DatabaseState:
    """What `shardd db status` tells."""

    version: str
    database: str
    role: str
    size: str
    superuser: bool
    read_only: bool
    producer_role: bool
    open_rights: list[str]
    """What everybody (PUBLIC) may do here and should not, such as CREATE ON SCHEMA public."""
    open_means: list[str]
    """What every login may make here, and fill the server with: advisory locks, large objects."""
    migrations: list[MigrationState]

    @property
    def current(self) -> bool:
        """Whether this release can run on the database as it is."""
        return all(migration.state == "applied" for migration in self.migrations)


def load_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The migrations of a folder, by default the package's; numbers must run from 1 without a gap."""
    folder = folder or files("shardd.queue").joinpath("migrations")
    found = []
    for file in folder.iterdir():
        if match := _FILE.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
        elif file.name.endswith(".sql") and file.name not in {TRANSPORTS_FILE, REVOKES, GRANTS}:
            raise DatabaseError(f"migration {file.name} has no name like 0001_queue.sql: rename it")
    found.sort(key=lambda migration: migration.version)
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise DatabaseError(
                f"migration {migration.file_name} should have the number {expected:04}: they run without a gap"
            )
    return found


async def migrate(dsn: str, folder: Traversable | None = None) -> list[str]:
    """Apply what is missing; returns the file names that were applied.

    Raises DatabaseError, and then nothing was changed. Without the producers' role the rights wait for the next run;
    `migration_status` tells of it.
    """
    folder = folder or files("shardd.queue").joinpath("migrations")
    migrations = load_migrations(folder)
    async with _connect(dsn) as connection:
        await _ensure_producer_role(connection)
        while True:
            try:
                return await _migrate(connection, folder, migrations)
            except _AnotherMadeItError:
                continue


class _AnotherMadeItError(Exception):
    """The record of migrations came into being while this connection was about to make it."""


async def _migrate(connection: Connection, folder: Traversable, migrations: Sequence[Migration]) -> list[str]:
    queries = queries_of("shardd.queue")
    async with connection.transaction():
        await connection.execute(queries["begin_migrating"], {"timeout": _LOCK_TIMEOUT})
        await _lock(connection)
        states = _compare(migrations, await _applied(connection))
        _refuse_strange(states)
        pending = [one for one, state in zip(migrations, states, strict=True) if state.state == "pending"]
        for migration in pending:
            await _apply(connection, migration.file_name, migration.text)
            record = {"version": migration.version, "name": migration.name, "sha256": migration.sha256}
            await connection.execute(queries["record_migration"], record)
        if (file := folder.joinpath(TRANSPORTS_FILE)).is_file():
            await _apply(connection, file.name, file.read_text(encoding="utf-8"), {"transports": list(TRANSPORTS)})
        for name in (REVOKES, GRANTS):
            file = folder.joinpath(name)
            if file.is_file() and (name != GRANTS or (await _producer_role(connection))[0]):
                await _apply(connection, name, file.read_text(encoding="utf-8"))
    return [migration.file_name for migration in pending]


async def _lock(connection: Connection) -> None:
    """Lock the record of migrations, which is made if need be. Raises DatabaseError."""
    queries = queries_of("shardd.queue")
    owner = await (await connection.execute(queries["schema_owner"])).fetchone()
    if owner is not None and not owner[1]:
        raise DatabaseError(
            f"the schema shardd of this database belongs to {owner[0]}, who could replace everything in it: let its owner or a "
            f"superuser run `ALTER SCHEMA shardd OWNER TO {connection.info.user}`, once it is sure what stands in it"
        )
    try:
        if await _has_record(connection):
            await connection.execute(queries["lock_migrations"])
        else:
            await connection.execute(queries["create_migrations"])
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(f"another program has been migrating this database for {_LOCK_TIMEOUT}") from error
    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateTable) as error:
        raise _AnotherMadeItError from error


async def migration_status(dsn: str, folder: Traversable | None = None) -> DatabaseState:
    """What the database is and where each migration stands; changes nothing."""
    migrations = load_migrations(folder)
    async with _connect(dsn, changes=False) as connection:
        cursor = await connection.execute(queries_of("shardd.queue")["describe_server"])
        version, database, role, size, superuser, read_only = await _one(cursor)
        exists, _ = await _producer_role(connection)
        open_rights = [
            row[0] for row in await (await connection.execute(queries_of("shardd.queue")["open_rights"])).fetchall()
        ]
        open_means = [
            row[0] for row in await (await connection.execute(queries_of("shardd.queue")["open_means"])).fetchall()
        ]
        applied = await _applied(connection) if await _has_record(connection) else []
    states = _compare(migrations, applied)
    return DatabaseState(
        *(version, database, role, size, superuser, read_only, exists),
        open_rights=open_rights,
        open_means=open_means,
        migrations=states,
    )


@asynccontextmanager
async def _connect(dsn: str, *, changes: bool = True) -> AsyncGenerator[Connection]:
    terms = Terms(
        application_name="shardd migrate",
        connect_timeout=_CONNECT_TIMEOUT,
        statement_timeout=_STATEMENT_TIMEOUT,
        writable=changes,
        session=changes,
    )
    servers = Servers(dsn, terms)
    connection = await servers.connect()
    try:
        async with connection, servers.ready(connection, _STATEMENT_TIMEOUT):
            yield connection
    except (psycopg.Error, OSError) as error:
        raise describe_error(error, dsn) from error


async def _one(cursor: psycopg.AsyncCursor[TupleRow]) -> TupleRow:
    row = await cursor.fetchone()
    assert row is not None  # these queries return one row whatever is stored
    return row


async def _has_record(connection: Connection) -> bool:
    return bool((await _one(await connection.execute(queries_of("shardd.queue")["has_migrations"])))[0])


async def _applied(connection: Connection) -> list[tuple[int, str, str, datetime]]:
    rows: list[Any] = await (await connection.execute(queries_of("shardd.queue")["applied_migrations"])).fetchall()
    return rows


async def _producer_role(connection: Connection) -> tuple[bool, bool]:
    exists, may_create = await _one(await connection.execute(queries_of("shardd.queue")["producer_role"]))
    return exists, may_create


async def _ensure_producer_role(connection: Connection) -> None:
    """Outside of the transaction: roles belong to the whole cluster, where another database may be migrated just now."""
    exists, may_create = await _producer_role(connection)
    if not exists and may_create:
        try:
            await connection.execute(queries_of("shardd.queue")["create_producer_role"])
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            return


def _compare(
    migrations: Sequence[Migration], applied: Sequence[tuple[int, str, str, datetime]]
) -> list[MigrationState]:
    here = {migration.version: migration for migration in migrations}
    there = {version: (name, sha256, at) for version, name, sha256, at in applied}
    states = []
    for version in sorted(here.keys() | there.keys()):
        name, sha256, at = there.get(version, (None, None, None))
        migration = here.get(version)
        if migration is None:
            states.append(MigrationState(version, name or "", "unknown", at))
        elif at is None:
            states.append(MigrationState(version, migration.name, "pending", None))
        else:
            same = (migration.name, migration.sha256) == (name, sha256)
            states.append(MigrationState(version, migration.name, "applied" if same else "changed", at))
    return states


def _refuse_strange(states: Sequence[MigrationState]) -> None:
    for state in states:
        label = f"{state.version:04}_{state.name}.sql"
        if state.state == "unknown":
            raise DatabaseError(
                f"the database was migrated by a newer shardd: {label}, applied at {state.applied_at:%Y-%m-%d %H:%M} UTC, "
                "is unknown here. Upgrade shardd, or restore the backup that was made before"
            )
        if state.state == "changed":
            raise DatabaseError(
                f"{label} is not the file that was applied to this database at {state.applied_at:%Y-%m-%d %H:%M} UTC: restore "
                "the file; a change of the schema belongs into a new migration"
            )


async def _apply(connection: Connection, name: str, text: str, values: dict[str, Any] | None = None) -> None:
    try:
        await connection.execute(text.encode(), values)
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = f":{text.count(chr(10), 0, int(position)) + 1}" if position else ""
        detail = ". ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
        raise DatabaseError(f"{name}{line} cannot be applied, and nothing was changed: {detail or error}") from error
