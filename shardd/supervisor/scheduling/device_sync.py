"""Keeps the scheduler and the workers up to date with the devices table, and writes what workers learn about devices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from shardd import ipc
from shardd.errors import RefusedDataError
from shardd.logs import get_logger
from shardd.queue.database import write_accepted
from shardd.queue.devices import Devices
from shardd.queue.records import StateChange
from shardd.states import DeviceState
from shardd.supervisor.scheduling.scheduler import DeviceChanges, Scheduler
from shardd.supervisor.services import Service, Step
from shardd.tasks import WakeUp

log = get_logger(__name__)

EVERY: Final = 5.0
"""Seconds between looks when nothing announces a change."""
SPACING: Final = 0.25
"""Seconds between looks, however many changes are announced: each reads every device."""


class DeviceSync(Service):
    """Reads and writes the devices."""

    def __init__(
        self,
        devices: Devices,
        scheduler: Scheduler,
        step: Step,
        *,
        changed: Callable[[], None],
        send: Callable[[int, ipc.ToWorker], bool],
        defect: Callable[[str], None],
        warm_days: Callable[[], int],
    ) -> None:
        """`changed` is called after each look; `warm_days`: how many days a warm-up takes."""
        self._devices = devices
        self._scheduler = scheduler
        self._changed = changed
        self._step = step
        self._send = send
        self._defect = defect
        self._warm_days = warm_days
        self._wake = WakeUp(SPACING)
        self._unwritten: dict[str, StateChange] = {}
        self._looking = asyncio.Lock()

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    def changed(self, message: ipc.DeviceChanged, epoch: int) -> None:
        """A worker learned something about a device, under a lease."""
        change = StateChange(message.device_id, message.state, message.reason, message.until, message.at, epoch)
        queue = self._scheduler.queues.get(change.device_id)
        log.log(
            20 if change.state is DeviceState.READY else 30,
            "device is %s",
            change.state.value,
            action="device",
            device=change.device_id,
            reason=change.reason,
            shard=None if queue is None else queue.shard,
        )
        self._scheduler.state_changed(change)
        self._unwritten[change.device_id] = change
        self._wake.set()

    async def look(self) -> None:
        """Write what is unwritten, then read every device. Raises DatabaseError."""
        async with self._looking:  # an older picture must not be taken over after a newer one
            await self._look()

    async def serve(self) -> None:
        """Look until cancelled."""
        while True:
            await self._wake.wait(self._step.pause(EVERY))
            with self._step:
                await self.look()

    async def _look(self) -> None:
        written = dict(self._unwritten)
        if written:
            await write_accepted(list(written.values()), self._devices.set_states, self._refuse)
            self._unwritten = {i: c for i, c in self._unwritten.items() if written.get(i) is not c}
        await self._devices.heal()
        devices = await self._devices.all(self._warm_days())
        now = time.monotonic()
        for shard, changes in self._scheduler.set_devices(
            devices, now, wall=time.time(), unwritten=self._unwritten
        ).items():
            self._tell(shard, changes)
        self._changed()

    async def _refuse(self, change: StateChange, error: RefusedDataError) -> None:
        """What the database does not want of one device must not keep it from hearing of all others."""
        log.error("a device's state cannot be stored", action="device", device=change.device_id, error=str(error))
        self._defect(f"the state of a device could not be stored: {error}")

    def _tell(self, shard: int, changes: DeviceChanges) -> None:
        self._send(shard, ipc.Devices(changed=changes.changed, removed=changes.removed))
