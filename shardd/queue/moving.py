"""Moving devices and opt-outs to the database of another region: the statements of `sql/moving.sql` as typed calls.

Each side of a move is one database; what a device is goes from one to the other as JSON that nobody looks into.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg

from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.opt_outs import CHUNK
from shardd.queue.queries import Statements, first
from shardd.queue.values import arrays

COMING: Final = "it is being moved here from another region: repeat shardd device move there"
"""Why an expected device is `replaced`; no other has this reason."""
_GONE: Final = "it moves to another region with "
"""Begins the reason why a device that leaves is `unpaired`; its session follows, by which a repeated move recognises it there."""
HELD_FOR: Final = 60.0
"""Seconds for which a shard's node may be kept, while a session is deleted."""


def gone_with(session: str | None) -> str:
    """The reason of a device that leaves with this session."""
    return _GONE + (session or "no session")


def has_gone(reason: str | None) -> bool:
    """Whether it is the reason of a device that leaves."""
    return reason is not None and reason.startswith(_GONE)


@dataclass(frozen=True, slots=True)
class ShardHolder:
    """The lease of a shard."""

    epoch: int
    node: str
    host: str


class Departures(Statements):
    """The database that a device leaves."""

    async def row(self, device_id: str) -> str:
        """The device, for `Arrivals.expect`."""
        return str(await self._database.value("device_to_move", {"id": device_id}))

    async def let_go(self, device_id: str, session: str | None) -> bool:
        """Take its session from a device; False when it has changed, or a job waits for it."""
        params = {"id": device_id, "session": session, "gone": gone_with(session)}
        return await self._database.execute("let_device_go", params) == 1

    async def days(self, device_id: str) -> str:
        """What it sent on each day, for `Arrivals.take_days`."""
        return str(await self._database.value("days_to_move", {"id": device_id}))

    async def shard_holder(self, shard: int) -> ShardHolder | None:
        """Who holds the shard now."""
        return first(await self._database.rows(ShardHolder, "shard_holder", {"shard": shard}))

    @asynccontextmanager
    async def same_holder(self, shard: int, epoch: int | None) -> AsyncGenerator[bool]:
        """Whether the shard is still held under this epoch (None: by nobody), which stays so during the block."""
        async with self._database.connection(timeout=HELD_FOR) as connection, connection.transaction():
            params = {"shard": shard}
            found = await (await connection.execute(self._database.queries["keep_shard_holder"], params)).fetchone()
            yield (None if found is None else found[0]) == epoch


class Arrivals(Statements):
    """The database that a device moves to."""

    async def expect(self, row: str) -> bool:
        """Make the row of a device; False when there is one of this id, or of its number, already."""
        try:
            return await self._database.execute("expect_device", {"device": row, "coming": COMING}) == 1
        except DatabaseError as error:
            if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                return False
            raise

    async def take_days(self, days: str) -> None:
        """Count what it sent before."""
        await self._database.execute("take_days", {"days": days})

    async def has_come(self, device_id: str) -> bool:
        """Let it send; False when it is not expected."""
        return await self._database.execute("device_has_come", {"id": device_id, "coming": COMING}) == 1


@dataclass(frozen=True, slots=True)
class CopiedOptOut:
    """An opt-out, as another region needs it."""

    address: str
    note: str | None
    heard_at: datetime
    created_by: str


async def copy_opt_outs(source: Database, target: Database, *, since: float | None = None) -> int:
    """Add the opt-outs of one database to another; returns how many were new there. Raises DatabaseError.

    `since`: only those that were added within so many seconds. One that is added meanwhile may be missing.
    """
    new, address = 0, ""
    while True:
        params = {"address": address, "seconds": since, "most": CHUNK}
        chunk = await source.rows_for(CopiedOptOut, "opt_outs_to_copy", params)
        if not chunk:
            return new
        address = chunk[-1].address
        given = arrays(chunk, addresses="address", notes="note", heard_ats="heard_at", created_bys="created_by")
        new += len(await target.column("copy_opt_outs_in", given))
