"""What the supervisor keeps an eye on in the database: new work, and the devices.

Notifications are hints that make things quick. Polling is the truth: a tail query and the promotion of due jobs a few
times a second, and a scan over every device's line every few seconds as the guarantee, because commits become visible
out of id order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from shardd import ipc
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.devices import Devices, StateChange
from shardd.queue.jobs import Hint, Jobs, read_hint
from shardd.states import DeviceState
from shardd.supervisor.lines import Changes, Lines
from shardd.supervisor.router import Router
from shardd.supervisor.waiting import has_come

log = get_logger(__name__)

PROMOTE_MOST: Final = 2000
"""Due jobs that join their lines with one statement."""
DEVICES_EVERY: Final = 5.0
"""Seconds between looks at the devices when nothing announces a change."""


class WorkWatch:
    """Finds the devices that have work and hints the router."""

    def __init__(self, database: Database, jobs: Jobs, router: Router, *, poll_every: float, scan_every: float) -> None:
        """Seconds between tail queries, and between full scans."""
        self._database = database
        self._jobs = jobs
        self._router = router
        self.poll_every = poll_every
        self.scan_every = scan_every
        self._wake = asyncio.Event()
        self._seen = 0
        self._scan_due = False

    def scan(self) -> None:
        """Look at every line soon."""
        self._scan_due = True
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        scanned = -1e9
        while True:
            self._wake.clear()
            try:
                if self._scan_due or time.monotonic() >= scanned + self.scan_every:
                    self._scan_due = False
                    # Newest first, then the scan: whatever is committed in between is seen by the next tail query.
                    self._seen = max(self._seen, await self._jobs.newest_id())
                    self.hint(await self._jobs.find_work())
                    scanned = time.monotonic()
                hints, self._seen = await self._jobs.new_work(self._seen)
                self.hint(hints)
                due, hints = await self._jobs.promote_due(PROMOTE_MOST)
                self.hint(hints)
            except DatabaseError as error:
                log.debug("no look at the queue", action="poll", error=str(error))
                due, self._scan_due = 0, True
            if due < PROMOTE_MOST:
                await has_come(self._wake, self.poll_every)

    async def listen(self) -> None:
        """Turn notifications into looks, until cancelled."""
        async for event in self._database.listen("shardd_jobs"):
            if event.kind == "lost":
                continue
            if (hint := read_hint(event.text)) is not None:
                self.hint([hint])
            self._wake.set()

    def hint(self, hints: list[Hint]) -> None:
        """Somebody knows where jobs may stand."""
        now = time.monotonic()
        for device_id, lane, place in hints:
            self._router.lines.hint(device_id, lane, place, now)
        if hints:
            self._router.wake()


class DeviceWatch:
    """Keeps the lines and the workers up to date with the devices table, and writes what workers learn."""

    def __init__(
        self,
        database: Database,
        devices: Devices,
        router: Router,
        *,
        say: Callable[[int, ipc.ToWorker], bool],
        warm_days: Callable[[], int],
    ) -> None:
        """`warm_days`: how many days a warm-up takes."""
        self._database = database
        self._devices = devices
        self._router = router
        self._say = say
        self._warm_days = warm_days
        self._wake = asyncio.Event()
        self._unwritten: dict[str, StateChange] = {}
        self._looking = asyncio.Lock()

    @property
    def lines(self) -> Lines:
        """The devices as they are known."""
        return self._router.lines

    def poke(self) -> None:
        """Look soon."""
        self._wake.set()

    def changed(self, message: ipc.DeviceChanged, epoch: int) -> None:
        """A worker learned something about a device, under a lease."""
        change = StateChange(message.device_id, message.state, message.reason, message.until, message.at, epoch)
        line = self.lines.by_id.get(change.device_id)
        log.log(
            20 if change.state is DeviceState.READY else 30,
            "device is %s",
            change.state.value,
            action="device",
            device=change.device_id,
            reason=change.reason,
            shard=None if line is None else line.shard,
        )
        self.lines.state_changed(change)
        self._unwritten[change.device_id] = change
        self._wake.set()

    async def look(self) -> None:
        """Write what is unwritten, then read every device. Raises DatabaseError."""
        async with self._looking:  # an older picture must not be taken over after a newer one
            await self._look()

    async def _look(self) -> None:
        written = dict(self._unwritten)
        if written:
            await self._devices.set_states(list(written.values()))
            self._unwritten = {i: c for i, c in self._unwritten.items() if written.get(i) is not c}
        await self._devices.heal()
        devices = await self._devices.all(self._warm_days())
        now = time.monotonic()
        for shard, changes in self.lines.look(devices, now, wall=time.time(), unwritten=self._unwritten).items():
            self._tell(shard, changes)
        self._router.wake()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await has_come(self._wake, DEVICES_EVERY)
            self._wake.clear()
            try:
                await self.look()
            except DatabaseError as error:
                log.debug("no look at the devices", action="poll", error=str(error))
                await asyncio.sleep(1.0)

    async def listen(self) -> None:
        """Turn notifications into looks, until cancelled."""
        async for event in self._database.listen("shardd_devices"):
            if event.kind != "lost":
                self._wake.set()

    def _tell(self, shard: int, changes: Changes) -> None:
        self._say(shard, ipc.Devices(changed=changes.changed, removed=changes.removed))
