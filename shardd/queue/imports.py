"""Taking over what another system left: the statements of `sql/imports.sql` as typed calls.

Everything may be done again: what is there already stays as it is. Jobs go through the gate of the table like everybody's; one
that it refuses does not stop the others. A rehearsal does the same and rolls it back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection, Error
from psycopg.rows import TupleRow

from shardd.queue.database import Database

BATCH: Final = 500
"""Jobs of one transaction: each of an order group takes a lock until its end."""
_ROWS_FAULT: Final = ("22", "23", "P0")
"""Classes of SQLSTATE that tell of the row and not of the database: bad data, a broken constraint, a trigger's refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedDevice:
    """A device that sent for long elsewhere; gaps in seconds, None: as the config says."""

    id: str
    transport: str
    state: str
    label: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    gap_min: float | None = None
    gap_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedJob:
    """A message that waits; `dedupe_key` names it for ever."""

    dedupe_key: str
    device_id: str
    recipient: str
    kind: str
    body: str
    media: str | None
    run_at: datetime
    expires_at: datetime | None
    campaign: str | None
    order_group: str | None
    reference: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that is, or was, there."""

    id: str
    transport: str
    session: str | None
    removed: bool


@dataclass(slots=True)
class Admission:
    """What became of jobs, by dedupe key."""

    added: set[str] = field(default_factory=set)
    opted_out: set[str] = field(default_factory=set)
    """Of those added: ended at once, because the recipient wants no more messages."""
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The column that the gate found fault with, and its words."""
    after_refused: set[str] = field(default_factory=set)
    """Left out, because a job before them in their order group was refused."""
    campaigns: set[str] = field(default_factory=set)
    """Those that were not there."""


class Imports:
    """Devices, campaigns and jobs from elsewhere, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database, *, rehearse: bool) -> None:
        """`rehearse`: roll back whatever is done."""
        self._database = database
        self._rehearse = rehearse
        self._blocked: set[str] = set()

    async def known_devices(self) -> dict[str, KnownDevice]:
        """Every device that is or was there, by id."""
        rows = await self._database.fetch_all("known_devices")
        return {row[0]: KnownDevice(*row) for row in rows}

    async def add_devices(self, devices: Sequence[ImportedDevice]) -> set[str]:
        """Returns the ids that were not there."""
        async with self._database.connection() as connection, connection.transaction(force_rollback=self._rehearse):
            return await self._add_devices(connection, devices)

    async def admit(self, jobs: Sequence[ImportedJob], devices: Sequence[ImportedDevice] = ()) -> Admission:
        """Insert jobs in this order, at most BATCH, and their campaigns.

        `devices`: in a rehearsal, those of the jobs that are not there.
        """
        admission = Admission()
        async with self._database.connection() as connection, connection.transaction(force_rollback=self._rehearse):
            if self._rehearse:
                await self._add_devices(connection, devices)
            campaigns = {job.campaign for job in jobs if job.campaign is not None}
            admission.campaigns = await self._add_campaigns(connection, campaigns)
            await self._insert(connection, jobs, admission)
        return admission

    async def _insert(
        self, connection: AsyncConnection[TupleRow], jobs: Sequence[ImportedJob], admission: Admission
    ) -> None:
        """All at once; when that is refused in halves, until the row that is at fault stands alone."""
        admission.after_refused |= {job.dedupe_key for job in jobs if job.order_group in self._blocked}
        jobs = [job for job in jobs if job.order_group not in self._blocked]
        if not jobs:
            return
        try:
            async with connection.transaction():
                params = {"rows": msgspec.json.encode(jobs).decode()}
                cursor = await connection.execute(self._database.queries["import_jobs"], params)
                rows = await cursor.fetchall()
        except Error as error:
            if not (error.sqlstate or "").startswith(_ROWS_FAULT):
                raise
            if len(jobs) > 1:
                half = len(jobs) // 2
                await self._insert(connection, jobs[:half], admission)
                await self._insert(connection, jobs[half:], admission)
                return
            job = jobs[0]
            admission.refused[job.dedupe_key] = (error.diag.column_name or "", _words(error))
            if job.order_group is not None:
                self._blocked.add(job.order_group)
        else:
            admission.added |= {key for key, _ in rows}
            admission.opted_out |= {key for key, opted_out in rows if opted_out}

    async def _add_devices(self, connection: AsyncConnection[TupleRow], devices: Sequence[ImportedDevice]) -> set[str]:
        params = {"rows": msgspec.json.encode(devices).decode()}
        cursor = await connection.execute(self._database.queries["import_devices"], params)
        return {row[0] for row in await cursor.fetchall()}

    async def _add_campaigns(self, connection: AsyncConnection[TupleRow], ids: Collection[str]) -> set[str]:
        params = {"ids": sorted(ids)}
        cursor = await connection.execute(self._database.queries["import_campaigns"], params)
        return {row[0] for row in await cursor.fetchall()}


def _words(error: Error) -> str:
    """What the gate said, with its hint, in one line."""
    parts = (error.diag.message_primary, error.diag.message_hint)
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part)
