"""Importing from another system: the statements of `sql/imports.sql` as typed calls.

Everything can be repeated: existing rows stay as they are. Jobs pass the table's triggers like all others; a refused one does not
stop the rest. A dry run does the same and rolls it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection, Error
from psycopg.rows import TupleRow

from shardd.errors import RefusedDataError
from shardd.queue.database import Database, write_accepted
from shardd.queue.queries import Record, column_of, rows_of
from shardd.words import sentences

BATCH: Final = 500
"""Jobs of one transaction: each of an order group holds a lock until its end."""
_ROWS_FAULT: Final = ("22", "23", "P0")
"""Classes of SQLSTATE for errors of the row: bad data, a violated constraint, a trigger's refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedDevice:
    """A device that has long sent elsewhere; gaps in seconds, None: the config's."""

    id: str
    transport: str
    state: str
    label: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    gap_min: float | None = None
    gap_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedJob:
    """A waiting message; `dedupe_key` identifies it for good."""

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
    """A device, which may be removed."""

    id: str
    transport: str
    session: str | None
    removed: bool


@dataclass(slots=True)
class Admission:
    """The result for jobs, by dedupe key."""

    added: set[str] = field(default_factory=set)
    opted_out: set[str] = field(default_factory=set)
    """Of those added: ended at once, because the recipient opted out."""
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The refused column, and the message."""
    after_refused: set[str] = field(default_factory=set)
    """Skipped, because a job before them in their order group was refused."""
    campaigns: set[str] = field(default_factory=set)
    """The new ones."""


class Imports:
    """Devices, campaigns and jobs from elsewhere, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database, *, dry_run: bool) -> None:
        """`dry_run`: roll back everything."""
        self._database = database
        self._dry_run = dry_run
        self._devices: list[ImportedDevice] = []
        """Of this import: a dry run rolls them back, so each of its batches adds them again."""
        self._blocked: set[str] = set()

    async def known_devices(self) -> dict[str, KnownDevice]:
        """Every device, removed ones included, by id."""
        return {device.id: device for device in await self._database.rows(KnownDevice, "known_devices")}

    async def add_devices(self, devices: Sequence[ImportedDevice]) -> None:
        """Insert devices; existing ones stay as they are."""
        self._devices += devices
        async with self._database.connection() as connection, connection.transaction(force_rollback=self._dry_run):
            await self._add_devices(connection, devices)

    async def admit(self, jobs: Sequence[ImportedJob]) -> Admission:
        """Insert jobs in this order, at most BATCH, and their campaigns."""
        admission = Admission()
        async with self._database.connection() as connection, connection.transaction(force_rollback=self._dry_run):
            if self._dry_run:
                wanted = {job.device_id for job in jobs}
                await self._add_devices(connection, [device for device in self._devices if device.id in wanted])
            campaigns = {job.campaign for job in jobs if job.campaign is not None}
            query = self._database.queries["import_campaigns"]
            admission.campaigns = set(await column_of(connection, query, {"ids": sorted(campaigns)}))
            await self._insert(connection, jobs, admission)
        return admission

    async def _insert(
        self, connection: AsyncConnection[TupleRow], jobs: Sequence[ImportedJob], admission: Admission
    ) -> None:
        async def write(some: Sequence[ImportedJob]) -> None:
            admission.after_refused |= {job.dedupe_key for job in some if job.order_group in self._blocked}
            accepted = [job for job in some if job.order_group not in self._blocked]
            params = {"rows": msgspec.json.encode(accepted).decode()}
            try:
                async with connection.transaction():
                    rows = await rows_of(connection, Record, self._database.queries["import_jobs"], params)
            except Error as error:
                if (error.sqlstate or "").startswith(_ROWS_FAULT):
                    raise RefusedDataError(_message(error)) from error
                raise
            admission.added |= {row["dedupe_key"] for row in rows}
            admission.opted_out |= {row["dedupe_key"] for row in rows if row["opted_out"]}

        async def refuse(job: ImportedJob, error: RefusedDataError) -> None:
            assert isinstance(error.__cause__, Error)  # raised by `write`
            admission.refused[job.dedupe_key] = (error.__cause__.diag.column_name or "", str(error))
            if job.order_group is not None:
                self._blocked.add(job.order_group)

        await write_accepted(jobs, write, refuse)

    async def _add_devices(self, connection: AsyncConnection[TupleRow], devices: Sequence[ImportedDevice]) -> None:
        params = {"rows": msgspec.json.encode(devices).decode()}
        await connection.execute(self._database.queries["import_devices"], params)


def _message(error: Error) -> str:
    """The refusal with its hint, in one line."""
    parts = (error.diag.message_primary, error.diag.message_hint)
    return sentences(*(" ".join(part.split()) for part in parts if part)).removesuffix(".")
