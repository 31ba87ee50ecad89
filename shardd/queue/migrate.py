"""Migrating a database to the schema of this release.

Migrations are the files `shardd/queue/migrations/NNNN_name.sql`. All that are missing are applied in one transaction under a lock
that only the owner of the schema can take: afterwards the database is at this release, or nothing happened. Of two supervisors
that start at once, the second waits and finds nothing to do. The SHA-256 of each file is recorded: a file that was edited after
it was applied would make databases differ unnoticed. At the end of each run, `definitions.sql` writes what this release defines
in Python, `numbering.sql` the numbering plans of all countries, `revokes.sql` takes unintended rights from PUBLIC, and
`grants.sql` gives the producers' role its rights, if it exists. A release leaves alone what a newer one has written of these.

During an upgrade of several hosts, nodes of two releases run on the schema of the newer one. The rules for a migration:

- It expands: it adds tables, columns (nullable, or with a constant default), functions and values. What an older release reads,
  writes or calls stays, with its meaning, until a later release, whose migration names the first one that does without.
- Its header names the oldest release that can run on the schema after it: `-- oldest release: 0.2.0`. Without that line it is
  this release. The migration is refused while an older node runs (`shardd.queue.releases`), and older nodes are afterwards.
- What an older node does not know, it drops or fails: a new column of jobs is lost when such a node archives the row, a job of a
  new kind fails there. So producers may write either only one release after the one that handles it. A new state of a device
  keeps it from sending on older nodes.
- Triggers and functions run for older nodes, too: they take what those write.
- It holds its locks briefly: no rewrite of a table, no scan of a large one (constraints are NOT VALID, rows are filled in
  later). While it waits for a lock, nobody else gets that, so it waits half a second, makes room, and tries again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, Literal

import psycopg

from shardd import __version__
from shardd.config import TRANSPORTS
from shardd.errors import BlockedError, DatabaseError
from shardd.postgres.errors import describe_error
from shardd.postgres.lock_watch import LockWatch
from shardd.postgres.servers import Connection, Servers, Terms
from shardd.queue.columns import QUERIES, fill_in, quoted
from shardd.queue.database import Database
from shardd.queue.queries import Record, column_of, first, rows_of
from shardd.queue.releases import is_older, last_defined, oldest_release, order, refuse_older_nodes
from shardd.tasks import TaskSet

DEFINITIONS: Final = "definitions.sql"
NUMBERING: Final = "numbering.sql"
REVOKES: Final = "revokes.sql"
GRANTS: Final = "grants.sql"
NO_PRODUCER_ROLE: Final = (
    "the role shardd_producer does not exist, and this user may not create it: let a superuser run "
    "`CREATE ROLE shardd_producer NOLOGIN`, then run `shardd db migrate` again to give it its rights"
)
NO_INBOX_ROLE: Final = (
    "the role shardd_inbox does not exist, and this user may not create it: let a superuser run `CREATE ROLE shardd_inbox "
    "NOLOGIN`, then run `shardd db migrate` again; until then only bound producers can read incoming messages"
)

_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_CONNECT_TIMEOUT: Final = 10.0
_STATEMENT_TIMEOUT: Final = 3600.0  # seconds: a migration of a large table is given its time
_LOCK_TIMEOUT: Final = "60s"
"""For the lock on the record of migrations, which keeps nobody waiting but others that migrate."""
_BRIEF: Final = 0.5
"""Seconds for any other lock: less than PostgreSQL's deadlock_timeout, so that of two it is the migration that fails."""
_ROOM: Final = 2.0
"""Seconds between tries."""
_TRIES: Final = 180.0
"""Seconds of tries, after which a start ends with the reason; systemd would end it later without."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: int
    name: str
    text: str

    @property
    def file_name(self) -> str:
        """The name in the folder."""
        return f"{self.version:04}_{self.name}.sql"

    @property
    def sha256(self) -> str:
        """Of the text, so that different line ends in a checkout do not matter."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def oldest_release(self) -> str | None:
        """That can run on the schema after it; None: the file does not say. Raises DatabaseError."""
        return oldest_release(self.text, self.file_name)


@dataclass(frozen=True)
class MigrationState:
    """The state of one migration: with a `changed` or `unknown` one, shardd does not migrate."""

    version: int
    name: str
    state: Literal["applied", "pending", "changed", "newer", "unknown"]
    """newer: this release does not know it, and can run on the schema after it. unknown: it cannot."""
    applied_at: datetime | None
    release: str | None = None
    """Which applied it."""
    oldest_release: str | None = None
    """Which can run on the schema after it."""

    @property
    def file_name(self) -> str:
        """The name in the folder."""
        return f"{self.version:04}_{self.name}.sql"


@dataclass(frozen=True)
class DatabaseState:
    """What `shardd db status` shows."""

    version: str
    database: str
    role: str
    size: str
    superuser: bool
    read_only: bool
    """Whether the server is a standby."""
    closed: bool
    """Whether transactions only read, as after a restore that was interrupted."""
    producer_role: bool
    inbox_role: bool
    open_rights: list[str]
    """Rights that PUBLIC has here and should not have, such as CREATE ON SCHEMA public."""
    open_means: list[str]
    """What every login may create here, and fill the server with: advisory locks, large objects."""
    migrations: list[MigrationState]
    defined_by: str | None = None
    """The release whose functions and rights it has."""

    @property
    def current(self) -> bool:
        """Whether this release can run on the database as it is."""
        return not self.closed and all(one.state in ("applied", "newer") for one in self.migrations)


def load_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The migrations of a folder, by default the package's; numbers must run from 1 without a gap."""
    folder = folder or files("shardd.queue").joinpath("migrations")
    found = []
    for file in folder.iterdir():
        if match := _FILE.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
        elif file.name.endswith(".sql") and file.name not in {DEFINITIONS, NUMBERING, REVOKES, GRANTS}:
            raise DatabaseError(f"migration {file.name} has no name like 0001_queue.sql: rename it")
    found.sort(key=lambda migration: migration.version)
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise DatabaseError(
                f"migration {migration.file_name} should have the number {expected:04}: they run without a gap"
            )
    return found


async def migrate(
    dsn: str,
    folder: Traversable | None = None,
    *,
    release: str = __version__,
    waits: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Apply what is missing; returns the file names that were applied.

    `waits` is called with the reason whenever a try finds a table locked. Raises DatabaseError, and then nothing was changed.
    Without the producers' role the rights wait for the next run; `migration_status` reports it.
    """
    folder = folder or files("shardd.queue").joinpath("migrations")
    migrations = load_migrations(folder)
    give_up = time.monotonic() + _TRIES
    async with _connect(dsn) as connection:
        await _ensure_roles(connection)
        backend = await LockWatch.backend_of(connection)
        while True:
            watch = LockWatch(backend, lambda: _connect(dsn, changes=False), every=0.8 * _BRIEF)
            try:
                async with _running(watch):
                    return await _migrate(connection, folder, migrations, release)
            except _AnotherMadeItError:
                continue
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                reason = f"a table is in use: {watch.blocker or describe_error(error, dsn)}"
                if time.monotonic() > give_up:
                    raise BlockedError(f"nothing was migrated in {_TRIES:g} s, because {reason}") from error
                waits(reason)
            await asyncio.sleep(_ROOM)


@asynccontextmanager
async def _running(watch: LockWatch) -> AsyncGenerator[None]:
    watches = TaskSet()
    watches.start(watch.run(), lambda _: None)
    try:
        yield
    finally:
        watch.end()
        await watches.end()


class _AnotherMadeItError(Exception):
    """The record of migrations came into being while this connection was about to make it."""


async def _migrate(
    connection: Connection, folder: Traversable, migrations: Sequence[Migration], release: str
) -> list[str]:
    async with connection.transaction():
        await connection.execute(QUERIES["begin_migrating"], {"timeout": _LOCK_TIMEOUT})
        await _lock(connection)
        await connection.execute(QUERIES["wait_briefly"], {"timeout": f"{_BRIEF * 1000:.0f}"})
        states = _compare(migrations, await rows_of(connection, Record, QUERIES["applied_migrations"]), release)
        if strange := _strange(states, release):
            raise DatabaseError(strange)
        missing = {state.version for state in states if state.state == "pending"}
        pending = [one for one in migrations if one.version in missing]
        needed = [(one.file_name, one.oldest_release or release) for one in pending]
        await refuse_older_nodes(connection, needed, release)
        for migration, (_, oldest) in zip(pending, needed, strict=True):
            await _apply(connection, migration.file_name, migration.text)
            record = {"version": migration.version, "name": migration.name, "sha256": migration.sha256}
            await connection.execute(
                QUERIES["record_migration"], record | {"release": release, "oldest_release": oldest}
            )
        defined = await last_defined(connection)
        if defined is None or not is_older(release, defined):
            await _define(connection, folder)
            await connection.execute(QUERIES["record_definitions"], {"release": release})
        # One may have started meanwhile. One that starts from now on finds these migrations when it takes its leases.
        await refuse_older_nodes(connection, needed, release)
    return [migration.file_name for migration in pending]


async def _define(connection: Connection, folder: Traversable) -> None:
    """Write the functions and rights of this release."""
    for name in (DEFINITIONS, NUMBERING, REVOKES, GRANTS):
        file = folder.joinpath(name)
        if file.is_file() and (name != GRANTS or (await _producer_role(connection))["is_there"]):
            await _apply(connection, name, fill_in(file.read_text(encoding="utf-8"), {"transports": _transports()}))


def _transports() -> str:
    """The rows of `shardd.transports`."""
    return ", ".join(
        f"('{name}', array[{quoted(one.kinds)}], {str(one.link_preview).lower()})" for name, one in TRANSPORTS.items()
    )


async def _lock(connection: Connection) -> None:
    """Lock the record of migrations, which is created if it is missing. Raises DatabaseError."""
    owner = first(await rows_of(connection, Record, QUERIES["schema_owner"]))
    if owner is not None and not owner["is_ours"]:
        raise DatabaseError(
            f"the schema shardd of this database belongs to {owner['owner']}, who could replace everything in it: check its "
            f"contents, then let its owner or a superuser run `ALTER SCHEMA shardd OWNER TO {connection.info.user}`"
        )
    try:
        await connection.execute(QUERIES["lock_migrations" if await _has_record(connection) else "create_migrations"])
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(f"another program has been migrating this database for {_LOCK_TIMEOUT}") from error
    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateTable) as error:
        raise _AnotherMadeItError from error


async def migration_status(dsn: str, folder: Traversable | None = None, *, release: str = __version__) -> DatabaseState:
    """What the database is and whether each migration is applied; changes nothing."""
    migrations = load_migrations(folder)
    async with _connect(dsn, changes=False) as connection:
        (server,) = await rows_of(connection, Record, QUERIES["describe_server"])
        producer_role = (await _producer_role(connection))["is_there"]
        inbox_role = (await rows_of(connection, Record, QUERIES["inbox_role"]))[0]["is_there"]
        open_rights = await column_of(connection, QUERIES["open_rights"])
        open_means = await column_of(connection, QUERIES["open_means"])
        has_record = await _has_record(connection)
        applied = await rows_of(connection, Record, QUERIES["applied_migrations"]) if has_record else []
        defined_by = await last_defined(connection) if has_record else None
    return DatabaseState(
        **server,
        producer_role=producer_role,
        inbox_role=inbox_role,
        open_rights=open_rights,
        open_means=open_means,
        migrations=_compare(migrations, applied, release),
        defined_by=defined_by,
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


async def _has_record(connection: Connection) -> bool:
    return bool((await column_of(connection, QUERIES["has_migrations"]))[0])


async def _producer_role(connection: Connection) -> Record:
    return (await rows_of(connection, Record, QUERIES["producer_role"]))[0]


async def _ensure_roles(connection: Connection) -> None:
    """Outside of the transaction: roles belong to the whole cluster, where another database may be migrated just now."""
    for look, create in (("producer_role", "create_producer_role"), ("inbox_role", "create_inbox_role")):
        (role,) = await rows_of(connection, Record, QUERIES[look])
        if not role["is_there"] and role["may_create"]:
            with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                await connection.execute(QUERIES[create])


def _compare(migrations: Sequence[Migration], applied: Sequence[Record], release: str) -> list[MigrationState]:
    here = {migration.version: migration for migration in migrations}
    there = {record["version"]: record for record in applied}
    states = []
    for version in sorted(here.keys() | there.keys()):
        migration, record = here.get(version), there.get(version)
        if record is None:
            states.append(MigrationState(version, here[version].name, "pending", None))
            continue
        state: Literal["applied", "changed", "newer", "unknown"]
        if migration is None:
            state = "unknown" if is_older(release, record["oldest_release"]) else "newer"
        else:
            same = (migration.name, migration.sha256) == (record["name"], record["sha256"])
            state = "applied" if same else "changed"
        releases = record["release"], record["oldest_release"]
        name = record["name"] if migration is None else migration.name
        states.append(MigrationState(version, name, state, record["applied_at"], *releases))
    return states


async def why_not(database: Database, migrations: Sequence[Migration], release: str = __version__) -> str | None:
    """Why this release, with its migrations, cannot run on the database any more; None: it can. Raises DatabaseError."""
    return _strange(_compare(migrations, await database.rows(Record, "applied_migrations"), release), release)


def _strange(states: Sequence[MigrationState], release: str) -> str | None:
    """What this release does not know and cannot run on, or knows otherwise; None: nothing."""
    for state in states:
        if state.state == "changed":
            return (
                f"{state.file_name} is not the file that was applied to this database at {state.applied_at:%Y-%m-%d %H:%M} UTC: "
                "restore the file; changes of the schema belong in a new migration"
            )
    unknown = [state for state in states if state.state == "unknown"]
    if not unknown:
        return None
    last = max(unknown, key=lambda state: order(state.oldest_release or ""))
    return (
        f"the database was migrated by a newer shardd, {last.release}: {last.file_name}, applied at "
        f"{last.applied_at:%Y-%m-%d %H:%M} UTC, needs shardd {last.oldest_release} or newer, and this is {release}. Upgrade "
        f"shardd to {last.oldest_release}, or restore a backup from before that"
    )


async def _apply(connection: Connection, name: str, text: str) -> None:
    try:
        await connection.execute(text.encode())
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = f":{text.count(chr(10), 0, int(position)) + 1}" if position else ""
        detail = ". ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
        raise DatabaseError(f"{name}{line} cannot be applied, and nothing was changed: {detail or error}") from error
