"""The error for a device that does not exist, with the one that was probably meant."""

from __future__ import annotations

from typing import Final

from shardd.config.values import closest
from shardd.errors import UsageError
from shardd.queue.devices import DeviceAdmin
from shardd.queue.queries import Queries

COMPARED: Final = 10_000
"""Devices whose ids are compared with the unknown one: some tens of milliseconds."""
OTHERS: Final = "the others: shardd device list"


async def unknown_device(database: Queries, device_id: str, otherwise: str = OTHERS) -> UsageError:
    """The error to raise; `otherwise`: what to do when no device resembles it. Raises DatabaseError."""
    near = closest(device_id, await DeviceAdmin(database).ids(most=COMPARED))
    fix = f"did you mean {near}? All: shardd device list" if near else otherwise
    return UsageError(f"device {device_id} is unknown; {fix}")
