"""The day on which WhatsApp refuses the installed version of its library: one problem, whatever the number of devices.

Once that is proven (`library_answers`), workers log in no device. Clients that are open go on. A device that would have to log in
becomes client_outdated, without an end and without an event of its own, and its jobs wait. Now and then one device of one node
tries to log in. When WhatsApp accepts it, or when shardd starts with another version, all devices are ready again by themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from shardd import ipc
from shardd.config.transports.whatsapp import WHATSAPP
from shardd.config.values import format_duration
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.library import LibraryRefusals
from shardd.states import CAN_SEND, DeviceState, LibraryState
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.device_queue import DeviceQueue
from shardd.supervisor.scheduling.library_answers import LibraryAnswers
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.supervisor.scheduling.table_sync import DeviceSync
from shardd.supervisor.services import Service, Step
from shardd.tasks import WakeUp

log = get_logger(__name__)

PROBE_EVERY: Final = 300.0
"""Seconds between logins of single devices while the version is refused."""
LOOK_EVERY: Final = 5.0
"""Seconds between looks at what other nodes have found, and between logins that are to settle a doubt."""


class LibraryWatch(Service):
    """Of one node."""

    def __init__(
        self,
        refusals: LibraryRefusals,
        scheduler: Scheduler,
        devices: DeviceSync,
        step: Step,
        *,
        hold: Callable[[bool], None],
        send: Callable[[int, ipc.ToWorker], bool],
    ) -> None:
        """`hold`: hold the logins of all workers, or no longer; `send`: a message to the worker of a shard."""
        self._refusals = refusals
        self._scheduler = scheduler
        self._devices = devices
        self._step = step
        self._hold = hold
        self._send = send
        self._answers = LibraryAnswers()
        self._wake = WakeUp(1.0)
        self._pending: dict[str, tuple[ipc.DeviceChanged, int]] = {}
        """Reports of devices while it is not clear whether they are about one device or about all."""
        self._asked: dict[str, float] = {}
        """By device: when it was last asked to log in."""
        self._record = False
        """The refusal is to be written."""
        self._end = True
        """The end of a refusal is to be written: that of an earlier version, once a login was accepted."""
        self._seen_login = False
        self._free_all = True
        """Also devices are ready again that wait for a certain time: the version may be another one."""
        self._unreported: set[str] = set()
        """Devices that were refused, and whose state was not reported yet."""
        self._restricted: dict[str, float] = {}
        """Devices that are restricted in the database, and client_outdated here: until when (infinite: for another version)."""
        self._probe_at_once = False

    @property
    def library(self) -> str:
        """Name and version, such as neonize 0.5.2."""
        return self._refusals.library

    @property
    def refused_since(self) -> float | None:
        """POSIX seconds; None: it is not refused."""
        return self._answers.since if self._answers.state is LibraryState.REFUSED else None

    # ---- what workers report

    def answered(self, answer: ipc.LoginAnswered) -> None:
        """A login was accepted, or refused because of the version."""
        before = self._answers.state
        if answer.outdated:
            self._unreported.add(answer.device_id)
            # Also those of other nodes, and of shards that are not up yet: few devices prove nothing about many.
            devices = sum(map(_logs_in, self._scheduler.queues.values()))
            self._answers.outdated(answer.device_id, devices, time.time())
            if self._answers.state is LibraryState.REFUSED is not before:
                self._record = True
                self._refused()
            elif before is LibraryState.ACCEPTED:
                log.warning("%s refused for one device", self.library, action="library", device=answer.device_id)
            return
        self._answers.accepted()
        if self._pending.pop(answer.device_id, None) is not None:
            self._devices.end_withholding(answer.device_id)
        if before is LibraryState.REFUSED:
            self._accepted()
        elif before is LibraryState.DOUBTED:
            self._settle_pending(alone=True)
        if not self._seen_login:
            self._seen_login = True
            self._wake.set()

    def device_changed(self, report: ipc.DeviceChanged, epoch: int) -> None:
        """A worker reported the state of a device."""
        if report.state is not DeviceState.CLIENT_OUTDATED:
            self._devices.state_changed(report, epoch)
            return
        was_refused = report.device_id in self._unreported
        self._unreported.discard(report.device_id)
        if self._answers.state is LibraryState.REFUSED:
            self._store(report, epoch, alone=False)
        elif not was_refused:
            pass  # it was only held back, and may log in again
        elif self._answers.state is LibraryState.DOUBTED:
            self._pending[report.device_id] = report, epoch
            self._devices.withhold(report, epoch)
        else:
            # Another device was accepted meanwhile.
            self._store(report, epoch, alone=True)

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        if (since := self.refused_since) is None:
            return
        mine = [queue for queue in self._scheduler.queues.values() if queue.device.transport == WHATSAPP.name]
        waiting = sum(queue.state is DeviceState.CLIENT_OUTDATED for queue in mine)
        when = f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
        yield Problem(
            ProblemKind.LIBRARY,
            f"WhatsApp refuses this version of its library ({self.library}, failure 405), since {when}: {waiting:,} of "
            f"{len(mine):,} WhatsApp devices cannot log in, and their jobs wait; those that are still connected go on. Install a "
            f"newer version: shardd guide library. One device tries again every {format_duration(PROBE_EVERY)}; once it is "
            "accepted, all go on by themselves",
        )

    # ---- the service

    async def start(self) -> None:
        """Learn what an earlier run or another node has found, before any worker starts."""
        with self._step:
            await self._look()
        self._probe_at_once = self.refused_since is not None

    async def serve(self) -> None:
        """Look, write, ask."""
        while True:
            await self._wake.wait(self._step.pause(LOOK_EVERY))
            with self._step:
                await self._look()
                await self._ask()

    async def _look(self) -> None:
        self._end_restricted(time.time())
        if self._record:
            await self._refusals.record(time.time() - (self._answers.since or time.time()))
            self._record = False
        elif self._end and self._seen_login and self._answers.state is not LibraryState.REFUSED:
            await self._refusals.end()
            self._end = False
        else:
            self._compare(await self._refusals.age())
        if self._answers.state is LibraryState.ACCEPTED:
            await self._free()

    def _compare(self, age: float | None) -> None:
        """With what the database says, which was written by any node that has this version."""
        if self._record or (self._end and self._seen_login):
            return  # meanwhile this node has learned more
        if age is not None and self._answers.state is not LibraryState.REFUSED:
            self._answers.proven(time.time() - age)
            self._refused()
        elif age is None and self._answers.state is LibraryState.REFUSED:
            self._answers.accepted()
            self._accepted()

    async def _free(self) -> None:
        """Make devices ready that wait for another version."""
        everyone, self._free_all = self._free_all, False
        waiting = [
            queue.device.id
            for queue in self._scheduler.queues.values()
            if queue.device.transport == WHATSAPP.name
            and queue.device.state is DeviceState.CLIENT_OUTDATED
            and (everyone or (queue.device.state_until is None and self._scheduler.is_up(queue)))
        ]
        if not waiting:
            return
        try:
            freed = await self._refusals.free_devices(waiting)
        except DatabaseError:
            self._free_all = self._free_all or everyone
            raise
        log.info("devices may log in again", action="library", devices=len(freed), library=self.library)
        self._devices.wake()

    async def _ask(self) -> None:
        """Let one device log in, if that could show something."""
        now, state = time.time(), self._answers.state
        candidates = self._candidates()
        if state is LibraryState.ACCEPTED or not candidates:
            return
        if state is LibraryState.DOUBTED:
            # Other logins usually answer sooner.
            if now < (self._answers.since or now) + LOOK_EVERY:
                return
            candidates = [queue for queue in candidates if queue.device.id not in self._answers.refused]
            if not candidates:
                # Too few for a proof, and no other device of this node could show more.
                self._settle_pending(alone=True)
                return
        elif not self._probe_at_once and not await self._refusals.claim_probe(PROBE_EVERY):
            return
        queue = min(candidates, key=self._rank)
        self._asked[queue.device.id] = now
        # A probe, also while there is only a doubt: a client that was closed for it could perhaps not be replaced.
        if self._send(queue.shard, ipc.Visit(device_id=queue.device.id, late=True, probe=True)):
            self._probe_at_once = False
            log.info("asking WhatsApp about %s", self.library, action="library", device=queue.device.id)

    def _rank(self, queue: DeviceQueue) -> tuple[bool, float, str]:
        """Those first that have no open client, which would not log in; then those that were not asked for long."""
        open_perhaps = queue.state is not DeviceState.CLIENT_OUTDATED
        return open_perhaps, self._asked.get(queue.device.id, 0.0), queue.device.id

    def _candidates(self) -> list[DeviceQueue]:
        """Devices of this node that could log in but for the version."""
        return [queue for queue in self._scheduler.queues.values() if _logs_in(queue) and self._scheduler.is_up(queue)]

    # ---- the turns

    def _refused(self) -> None:
        log.error("WhatsApp refuses %s: logins are held; see `shardd guide library`", self.library, action="library")
        self._end = False
        self._hold(True)
        self._settle_pending(alone=False)
        self._wake.set()

    def _accepted(self) -> None:
        log.warning("WhatsApp accepts %s again", self.library, action="library")
        self._record, self._end = False, True
        self._probe_at_once, self._free_all = False, True
        self._unreported.clear()
        self._end_restricted(math.inf)
        self._hold(False)
        self._wake.set()

    def _settle_pending(self, *, alone: bool) -> None:
        pending, self._pending = self._pending, {}
        for report, epoch in pending.values():
            self._store(report, epoch, alone=alone)

    def _store(self, report: ipc.DeviceChanged, epoch: int, *, alone: bool) -> None:
        """`alone`: it is about this device, which tries again at its own time; otherwise it waits for the library."""
        self._devices.end_withholding(report.device_id)
        if not alone:
            report = msgspec.structs.replace(report, until=None)
        queue = self._scheduler.queues.get(report.device_id)
        if queue is not None and queue.device.state is DeviceState.RESTRICTED:
            # Its row goes on to say so: the restriction may outlast this.
            self._restricted[report.device_id] = math.inf if report.until is None else report.until
            self._devices.withhold(report, epoch)
        else:
            self._devices.state_changed(report, epoch, quietly=not alone)

    def _end_restricted(self, now: float) -> None:
        """Devices whose time is over are as restricted as their rows say."""
        for device_id, until in list(self._restricted.items()):
            if until <= now:
                del self._restricted[device_id]
                self._devices.end_withholding(device_id)


def _logs_in(queue: DeviceQueue) -> bool:
    """Whether a device could log in but for the version."""
    return (
        queue.device.transport == WHATSAPP.name
        and queue.device.session is not None
        and queue.state in (*CAN_SEND, DeviceState.CLIENT_OUTDATED)
        and queue.fault is None
    )
