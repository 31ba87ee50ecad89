"""Keeps the scheduler up to date with the tables of devices and campaigns, and writes the device states that workers report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from shardd import ipc
from shardd.errors import DeviceUnavailableError, RefusedDataError
from shardd.logs import get_logger
from shardd.queue.campaigns import Campaigns
from shardd.queue.database import write_accepted
from shardd.queue.devices import ChangedDevices, Devices
from shardd.queue.records import RemovedDevice, StateChange
from shardd.states import DeviceState
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.services import Service, Step
from shardd.tasks import WakeUp

log = get_logger(__name__)

ALL_EVERY: Final = 60.0
"""Seconds between readings of all devices; in between, only those that changed are read."""
MANY: Final = 1000
"""Changed devices for which all are read, too: they are looked for one by one."""
SENDS_EVERY: Final = 2.0
"""Seconds between readings of what campaigns with a cap have sent, which another node may have counted."""


class TableSync(Service):
    """Reads a table periodically, and soon after `wake`."""

    def __init__(self, step: Step, *, every: float, spacing: float) -> None:
        """Seconds between readings when nothing wakes it, and at least, however often it is woken."""
        self._step = step
        self._every = every
        self._wake = WakeUp(spacing)

    def wake(self) -> None:
        """Read soon."""
        self._wake.set()

    async def serve(self) -> None:
        """Read until cancelled."""
        while True:
            await self._wake.wait(self._step.pause(self._every))
            with self._step:
                await self.sync()

    async def sync(self) -> None:
        """Read now. Raises DatabaseError."""
        raise NotImplementedError


class DeviceSync(TableSync):
    """The devices, for the scheduler and the workers."""

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
        reporting: Sequence[str] = (),
    ) -> None:
        """`changed` is called after each reading; `warm_days`: how many days a warm-up takes; `reporting`: see `removed`."""
        super().__init__(step, every=5.0, spacing=0.25)  # each looks at every row
        self._devices = devices
        self._scheduler = scheduler
        self._changed = changed
        self._send = send
        self._defect = defect
        self._warm_days = warm_days
        self._reporting = reporting
        self.removed: Sequence[RemovedDevice] = ()
        """Of the transports whose platforms report what people write, as of the last reading."""
        self._unwritten: dict[str, StateChange] = {}
        self._withheld: dict[str, StateChange] = {}
        """States that hold here, and that are not to be written yet."""
        self._waits: dict[str, tuple[float, str]] = {}
        """By device: until when it waits (POSIX seconds) and why; not written yet."""
        self._reading = asyncio.Lock()
        self._running = 0
        """The oldest transaction that had not ended at the last reading."""
        self._all_at = 0.0
        """When all devices are to be read."""
        self._again: set[str] = set()
        """Devices whose row is read, though it has not changed: what is known here may differ from it."""

    def unavailable(self, device_id: str, error: DeviceUnavailableError, at: float) -> None:
        """A platform reported that a device cannot send: it waits, or stops, on any node. `at`: when, in POSIX seconds."""
        if device_id not in self._scheduler.queues:
            return  # it was removed
        if error.state is not None:
            self.state_changed(ipc.DeviceChanged(device_id, DeviceState(error.state), str(error), None, at), None)
            return
        left = at + (error.retry_after or 0.0) - time.time()
        if left <= 0:
            return  # Meta may report for days
        until = time.monotonic() + left
        waiting = self._scheduler.back_off(device_id, until, str(error), whole_account=error.whole_account)
        self._waits.update(dict.fromkeys(waiting, (time.time() + left, str(error))))
        self.wake()

    def withhold(self, message: ipc.DeviceChanged, epoch: int) -> None:
        """A worker reported a state that holds here until `end_withholding`, and is not written."""
        change = _change_of(message, epoch)
        if self._scheduler.state_changed(change):
            self._withheld[change.device_id] = change

    def end_withholding(self, device_id: str) -> None:
        """The state of the device is again as its row says."""
        if self._withheld.pop(device_id, None) is not None:
            self._again.add(device_id)
            self.wake()

    def state_changed(self, message: ipc.DeviceChanged, epoch: int | None, *, quietly: bool = False) -> None:
        """A worker reported a new state of a device, under a lease; or, without one, its platform did.

        `quietly`: it is one of many with one cause, which is logged elsewhere.
        """
        change = _change_of(message, epoch)
        what = {
            "device": change.device_id,
            "reason": change.reason,
            "shard": self._scheduler.shard_of(change.device_id),
        }
        if not self._scheduler.state_changed(change):
            # Such as the end of a session that the device no longer has.
            log.info("report ignored: device is %s", change.state.value, action="device", **what)
            return
        (log.debug if quietly else log.warning)("device is %s", change.state.value, action="device", **what)
        self._unwritten[change.device_id] = change
        self.wake()

    async def write_states(self) -> None:
        """Write the states that were reported under a lease, which must be held still. Raises DatabaseError."""
        async with self._reading:
            await self._write_states()

    async def _write_states(self) -> None:
        if written := dict(self._unwritten):
            await write_accepted(list(written.values()), self._devices.set_states, self._refuse)
            self._unwritten = {i: change for i, change in self._unwritten.items() if written.get(i) is not change}
            self._again |= written.keys()  # the database may have refused a state

    async def read_all(self) -> None:
        """Write the reported states, then read every device, with what other nodes sent for it. Raises DatabaseError."""
        async with self._reading:
            self._all_at = 0.0
            await self._sync()

    def read_all_soon(self) -> None:
        """Not only the devices that changed."""
        self._all_at = 0.0
        self.wake()

    async def sync(self) -> None:
        """Write the reported states, then read the devices that changed. Raises DatabaseError."""
        async with self._reading:  # an older picture must not replace a newer one
            await self._sync()

    async def _sync(self) -> None:
        await self._write_states()
        if waits := dict(self._waits):
            now = time.time()
            await self._devices.back_off({name: (max(0.0, until - now), why) for name, (until, why) in waits.items()})
            self._waits = {name: wait for name, wait in self._waits.items() if waits.get(name) is not wait}
        await self._devices.heal()
        self._again |= self._scheduler.take_restated()
        changed = await self._devices.changed(self._running)
        ids = self._ids_to_read(changed)
        devices = await self._devices.all(self._warm_days(), ids)
        # After the devices: one that is removed between the two is in both, and not in none.
        if self._reporting:
            self.removed = await self._devices.removed(self._reporting)
        now, wall, unwritten = time.monotonic(), time.time(), self._withheld | self._unwritten
        if ids is None:
            changes = self._scheduler.set_devices(devices, now, wall=wall, unwritten=unwritten)
        else:
            gone = set(ids) - {device.id for device in devices}
            changes = self._scheduler.change_devices(devices, gone, now, wall=wall, unwritten=unwritten)
        self._has_read(changed, ids)
        for shard, change in changes.items():
            self._send(shard, change)
        self._changed()

    def _has_read(self, changed: ChangedDevices, ids: list[str] | None) -> None:
        if ids is None:
            self._again.clear()
            self._all_at = time.monotonic() + ALL_EVERY
        else:
            self._again.difference_update(ids)
        self._running = changed.running
        if ids is not None and len(self._scheduler.queues) != changed.devices:
            # A row that was deleted is not there to be found.
            self.read_all_soon()

    def _ids_to_read(self, changed: ChangedDevices) -> list[str] | None:
        """None: of all devices."""
        ids = self._again.union(changed.ids)
        is_all = (
            time.monotonic() >= self._all_at
            or changed.running < self._running  # a server that lost transactions counts them again
            or len(ids) > MANY
        )
        return None if is_all else sorted(ids)

    async def _refuse(self, change: StateChange, error: RefusedDataError) -> None:
        """A state that the database refuses must not delay those of other devices."""
        log.error("a device's state cannot be stored", action="device", device=change.device_id, error=str(error))
        self._defect(f"the state of a device could not be stored: {error}")


def _change_of(message: ipc.DeviceChanged, epoch: int | None) -> StateChange:
    return StateChange(message.device_id, message.state, message.reason, message.until, message.at, epoch)


class CampaignSync(TableSync):
    """The running campaigns with their weights, caps and counts; the claim itself skips the jobs of paused ones."""

    def __init__(
        self,
        campaigns: Campaigns,
        scheduler: Scheduler,
        step: Step,
        *,
        changed: Callable[[], None],
        resumed: Callable[[], None],
    ) -> None:
        """`changed` is called after each change, `resumed` if campaigns run that did not before: their lanes must be scanned.

        A claim that found its campaign paused made the scheduler believe that there is no work.
        """
        super().__init__(step, every=0.5, spacing=0.1)  # a resumed campaign waits no longer
        self._campaigns = campaigns
        self._scheduler = scheduler
        self._changed = changed
        self._resumed = resumed
        self._sends_read_at = float("-inf")

    async def sync(self) -> None:
        """Read which campaigns run. Raises DatabaseError."""
        scheduler, now = self._scheduler, time.monotonic()
        running = await self._campaigns.running()
        capped = any(campaign.device_cap is not None for campaign in running.values())
        if capped and (running != scheduler.campaigns or now >= self._sends_read_at + SENDS_EVERY):
            # Before the campaigns are set, so that none of them is without its count for a moment.
            since = (datetime.now(UTC) - timedelta(days=2)).date()
            for campaign, device_id, day, sent in await self._campaigns.sends(since):
                if (queue := scheduler.queues.get(device_id)) is not None:
                    queue.note_campaign_sends(campaign, day, sent)
            self._sends_read_at = now
        if running != scheduler.campaigns:
            resumed = running.keys() - scheduler.campaigns.keys()
            scheduler.set_campaigns(running, time.monotonic())
            self._changed()
            if resumed:
                self._resumed()
