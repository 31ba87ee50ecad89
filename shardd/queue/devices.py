"""Devices in the database: the statements of `sql/devices.sql` as typed calls."""

from __future__ import annotations

import time
from collections.abc import Sequence

from psycopg.rows import TupleRow

from shardd.queue.database import Database
from shardd.queue.device_json import read_device_json
from shardd.queue.records import Device, StateChange
from shardd.states import DeviceState


class Devices:
    """The devices' statements over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, warm_days: int) -> list[Device]:
        """Every device that is not removed; `warm_days`: how long the longest warm-up is."""
        rows = await self._database.fetch_all("all_devices", {"warm_days": warm_days})
        return [_device(row) for row in rows]

    async def set_states(self, changes: Sequence[StateChange]) -> None:
        """Write what was learned."""
        now = time.time()
        await self._database.execute(
            "set_device_states",
            {
                "ids": [c.device_id for c in changes],
                "states": [c.state.value for c in changes],
                "reasons": [c.reason for c in changes],
                "remainings": [None if c.until is None else c.until - now for c in changes],
                "ages": [max(0.0, now - c.at) for c in changes],
                "epochs": [c.epoch for c in changes],
            },
        )

    async def heal(self) -> list[str]:
        """Make devices ready whose ban or restriction is over; returns their ids."""
        rows = await self._database.fetch_all("heal_devices")
        return [row[0] for row in rows]


def _device(row: TupleRow) -> Device:
    fields = list(row)
    read = read_device_json(row[5], row[19])
    fields[5], fields[19] = read.settings, read.classes
    fields[6] = DeviceState(fields[6])
    fields[21:24] = [number or 0 for number in fields[21:24]]
    fields.append(None if read.fault is None else read.fault.format(id=row[0]))
    return Device(*fields)
