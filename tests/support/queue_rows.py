"""Inserts rows of the queue for tests (devices, jobs, a lease) in the same way as their owners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from shardd.queue.beats import BeatMemory
from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.leases import Leases, NodeIdentity
from shardd.queue.records import ClaimRequest, WorkHint
from shardd.queue.settle import Claim, Finish, Release
from shardd.states import JobState
from shardd.supervisor.scheduling.device_queue import FIRST_POSITION

Connection = psycopg.Connection[Any]
HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


def connect(dsn: str) -> Connection:
    return psycopg.connect(dsn, autocommit=True)


def add_devices(dsn: str, *names: str, **fields: Any) -> None:
    columns = {"transport": "sandbox", **fields}
    statement = sql.SQL("INSERT INTO shardd.devices (id, {}) SELECT unnest(%s::text[]), {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join(sql.Placeholder() * len(columns))
    )
    with connect(dsn) as connection:
        connection.execute(statement, [list(names), *columns.values()])


def add_campaigns(dsn: str, *names: str, **fields: Any) -> None:
    with connect(dsn) as connection:
        for name in names:
            columns = {"id": name, **fields}
            statement = sql.SQL("INSERT INTO shardd.campaigns ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join(sql.Placeholder() * len(columns))
            )
            connection.execute(statement, list(columns.values()))


def add_group(dsn: str, name: str, *devices: str) -> None:
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.device_groups (id) VALUES (%s)", [name])
        connection.execute(
            "INSERT INTO shardd.device_group_members SELECT %s, unnest(%s::text[])", [name, list(devices)]
        )


def insert_jobs(target: str | Connection, device: str, count: int = 1, **fields: Any) -> list[int]:
    """Insert jobs; returns their ids in order. `target`: a DSN, or a connection whose transaction is used."""
    if isinstance(target, str):
        with connect(target) as connection:
            return insert_jobs(connection, device, count, **fields)
    columns = {"device_id": device, "recipient": "+6281234567", "body": "hello", **fields}
    statement = sql.SQL("INSERT INTO shardd.jobs ({}) SELECT {} FROM generate_series(1, %s) RETURNING id").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join(sql.Placeholder() * len(columns))
    )
    return sorted(row[0] for row in target.execute(statement, [*columns.values(), count]))


def identity(name: str, *, id: str | None = None, place: str | None = "here") -> NodeIdentity:  # noqa: A002  # a field's name
    """A node; another `place` is another host, or the same one after a restart."""
    return NodeIdentity(
        id=id or name, name=name, host="host", state_dir=f"/{name}", place=place and f"{place}/{id or name}"
    )


_memories: WeakKeyDictionary[Database, dict[str, BeatMemory]] = WeakKeyDictionary()


def memory_of(database: Database, node: str) -> BeatMemory:
    """What the state folder of a node remembers, whichever of its supervisors asks."""
    return _memories.setdefault(database, {}).setdefault(node, BeatMemory())


async def take_epoch(
    database: Database, shard: int = 0, node: str = "node-a", ttl: float = 600.0, incarnation: UUID | None = None
) -> int:
    """Take a new lease; returns its epoch."""
    memory = memory_of(database, node)
    leases = Leases(database, node=identity(node), incarnation=incarnation or uuid4(), ttl=ttl, memory=memory)
    await leases.register(8, "test")
    epoch = await leases.take(shard)
    assert epoch is not None
    return epoch


async def claim(jobs: Jobs, epoch: int, *devices: str, room: int = 1, lane: str = "/marketing") -> list[Claim]:
    """Claim the next jobs of these devices."""
    cycle = await jobs.cycle(
        Settlement(), [ClaimRequest(device, lane, epoch, FIRST_POSITION, room) for device in devices]
    )
    return [claimed.claim for claimed in cycle.claimed]


async def find_work(jobs: Jobs) -> list[WorkHint]:
    """Every lane with jobs, and its first position."""
    return [hint async for page in jobs.find_work(1000, 1000) for hint in page]


def finish(
    claim: Claim, state: JobState = JobState.SENT, message_id: str | None = None, error: str | None = None
) -> Settlement:
    return Settlement(finishes=[Finish(claim, state, claim.failures, message_id, error)])


def release(claim: Claim, due_at: float | None = None, failures: int = 0, error: str | None = None) -> Settlement:
    return Settlement(releases=[Release(claim, failures, due_at, error)])


def row_of(dsn: str, job: int) -> dict[str, Any]:
    """The job in the producers' view."""
    with connect(dsn) as connection:
        row = (
            connection.cursor(row_factory=dict_row)
            .execute("SELECT * FROM shardd.outcomes WHERE id = %s", [job])
            .fetchone()
        )
    assert row is not None
    return row


def states(dsn: str) -> dict[int, str]:
    with connect(dsn) as connection:
        return dict(connection.execute("SELECT id, state FROM shardd.outcomes ORDER BY id").fetchall())


def run_blocked(dsn: str, first: Connection, second: Connection, work: Callable[[], object], *, commits: bool) -> None:
    """Run `work` of the second transaction, which has to wait for the end of the first; `commits`: how the first ends."""

    def later() -> None:
        work()
        second.commit()

    waiter = threading.Thread(target=later)
    waiter.start()
    with connect(dsn) as watch:
        while watch.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", [second.info.backend_pid]
        ).fetchone() == (0,):
            assert waiter.is_alive()
    if commits:
        first.commit()
    else:
        first.rollback()
    waiter.join(HANG)
