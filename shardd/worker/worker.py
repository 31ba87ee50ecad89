"""A worker: one process, one event loop, the clients of one shard's devices.

It does what its supervisor says over the channel and nothing else: no queue, no timers per device. Its heartbeat comes
from the event loop, so that a hung loop is seen. When the supervisor is gone it finishes what it has started and exits.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from shardd import ipc
from shardd.channel import Channel
from shardd.errors import ErrorClass, JournalError, JournalHeldError, SharddError
from shardd.ipc import ClaimKey, DeviceSpec, JobSpec, Outcome
from shardd.journal import Journal
from shardd.logs import get_logger, set_log_level
from shardd.states import DeviceState, Verdict
from shardd.wire import OutOfStepError, Unread, Unsent, worker_reader
from shardd.worker.sender import Sender
from shardd.worker.transports import Transports

log = get_logger(__name__)

ORPHAN_GRACE: Final = 5.0
"""Seconds that a worker without a supervisor gives to what it has started."""
LOCK_WAIT: Final = 30.0
"""Seconds that a new worker waits for the journal of its predecessor."""
CLAIM: Final = ("id", "epoch", "attempt", "token")
"""The fields of a job that name its claim."""
LAGGING: Final = 1.0
"""Seconds of loop lag worth a line in the log."""


class Worker:
    """The worker's life: setup, then messages, until it is drained or orphaned."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._journal: Journal | None = None
        self._sender: Sender | None = None
        self._transports = Transports({}, {}, self)
        self._devices: dict[str, DeviceSpec] = {}
        self._outcomes: list[Outcome] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lease_end: asyncio.TimerHandle | None = None

    async def run(self, sock: socket.socket) -> int:
        """Live until the end; returns the exit code."""
        self._channel = await Channel.connect(sock, worker_reader(), self)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leave)
        try:
            return await self._ended
        finally:
            for task in self._tasks:
                task.cancel()
            await self._transports.close()
            self._channel.close()
            if self._journal is not None:
                self._journal.close()

    # ---- transports.base.Events

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        """A transport learned something about a device."""
        self._say(
            ipc.DeviceChanged(device_id=device_id, state=DeviceState(state), reason=reason, until=until, at=time.time())
        )

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float) -> None:
        """A message was delivered or read."""
        self._say(ipc.Receipt(device_id=device_id, message_ids=message_ids, kind=kind, at=at))

    def opted_out(self, device_id: str, recipients: list[str], words: str, at: float) -> None:
        """Somebody wants no more messages."""
        self._say(ipc.OptedOut(device_id=device_id, recipients=recipients, words=words, at=at))

    # ---- what the supervisor says: channel.Listener

    def heard(self, message: ipc.ToWorker) -> None:
        """It said something."""
        match message:
            case ipc.Setup():
                self._start(self._set_up(message))
            case ipc.Send() if self._sender is not None:
                self._sender.take(message.jobs)
            case ipc.Settled() if self._journal is not None:
                self._forget(message.claims)
            case ipc.Devices():
                self._start(self._change_devices(message), message)
            case ipc.Close():
                self._start(self._close_devices(message), message)
            case ipc.Drain():
                self._start(self._drain(message.timeout, memory=message.memory))
            case ipc.Lease():
                self._hold(message)
            case ipc.LogLevel():
                set_log_level(message.level)
            case ipc.Audit():
                self._answer_audit(message.request)

    def unread(self, what: Unread) -> None:
        """It said something that cannot be read: if it was a job, that one ends; without a setup nothing can go on."""
        text = f"what the supervisor says cannot be read: {what}"
        if what.item is JobSpec and what.fields.keys() >= set(CLAIM):
            job_id, epoch, attempt, token = (what.fields[name] for name in CLAIM)
            self._report(
                Outcome(
                    *(job_id, epoch, attempt, token, Verdict.TRANSIENT),
                    error=text,
                    error_class=ErrorClass.WORKER,
                    at=time.time(),
                )
            )
        self._tell_defect(text)
        if what.kind == "setup" and what.item is None:
            self._fail(text)

    def unsent(self, what: Unsent) -> None:
        """It cannot be told something: of an outcome, what can be said of it is."""
        self._tell_defect(f"{type(what.item).__name__} cannot be said to the supervisor: {what.why}")
        if isinstance(what.item, Outcome):
            known = what.item
            least = Outcome(*known.key, known.verdict, known.message_id, at=known.at)
            if least != known:
                self._report(least)

    def failed(self, message: Any, error: Exception) -> None:
        """Hearing a message raised this."""
        text = f"{type(message).__name__} could not be handled: {type(error).__name__}: {error}"
        log.error(text, action="defect", exc_info=error)
        self._say(ipc.Defect(text))

    def out_of_step(self, error: OutOfStepError) -> None:
        """Nothing that it says can be read any more."""
        text = f"what the supervisor says cannot be read any more: {error}"
        self._tell_defect(text)
        self._fail(text)

    def lost(self) -> None:
        """The supervisor is gone."""
        if not self._ended.done():
            log.warning("supervisor is gone: finishing what has started", action="orphan")
            self._start(self._drain(ORPHAN_GRACE, unheard=True))

    async def _set_up(self, setup: ipc.Setup) -> None:
        self._devices = {device.id: device for device in setup.devices}
        self._journal = await self._open_journal(setup)
        self._journal.begin()
        surroundings = {
            "node": setup.node,
            "shard": setup.shard,
            "record_dir": str(Path(setup.journal).parent.parent / "sandbox"),
            "sessions_dsn": setup.sessions_dsn,
            "opt_out_words": setup.opt_out_words,
        }
        self._transports = Transports(setup.transports, surroundings, self)
        self._sender = Sender(
            journal=self._journal,
            transports=self._transports,
            devices=self._devices,
            events=self,
            report=self._report,
            send_timeout=setup.send_timeout,
            rss=_rss,
            careful=setup.careful_for > 0,
        )
        asyncio.get_running_loop().call_later(setup.careful_for, self._sender.relax)
        for name in {device.transport for device in self._devices.values()}:
            await self._transports.load(name)
        self._start(self._beat(setup.heartbeat_every))
        self._say(ipc.Ready(pid=os.getpid(), rss=_rss()))

    async def _open_journal(self, setup: ipc.Setup) -> Journal:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                return Journal.open(Path(setup.journal), state=setup.state_id, shard=setup.shard, fsync=setup.fsync)
            except JournalHeldError:
                if time.monotonic() > deadline:
                    raise
                # flock has no deadline of its own; the predecessor is on its way out.
                await asyncio.sleep(0.02)

    async def _change_devices(self, message: ipc.Devices) -> None:
        others = []
        for device in message.changed:
            before = self._devices.get(device.id)
            if before is not None and before.session != device.session:
                others.append(device.id)
            self._devices[device.id] = device
        for device_id in message.removed:
            await self._close_client(device_id)
            self._devices.pop(device_id, None)
        for device_id in others:
            # Its old session may be somebody else's from now on, or is about to be ended.
            await self._close_client(device_id)

    async def _close_devices(self, message: ipc.Close) -> None:
        for device_id in message.devices:
            await self._close_client(device_id)
        self._say(ipc.Closed(request=message.request))

    async def _close_client(self, device_id: str) -> None:
        device = self._devices.get(device_id)
        transport = self._transports.get(device.transport) if device is not None else None
        if transport is not None and self._sender is not None:
            async with self._sender.lock_of(device_id):
                await transport.close_device(device_id)

    async def _drain(self, timeout: float, *, code: int = 0, memory: int | None = None, unheard: bool = False) -> None:
        if self._sender is not None:
            await self._sender.drain(timeout, memory=memory, unheard=unheard)
        self._say(ipc.Drained())
        self._end(code)

    def _answer_audit(self, request: int) -> None:
        if self._journal is None or self._sender is None:
            return
        for outcome in self._journal.open_outcomes():
            # Each by itself: if it is an outcome that made a message unreadable, it does so to no other now.
            self._say(ipc.Outcomes(outcomes=[outcome]))
        self._say(ipc.InFlight(request=request, claims=self._sender.claims(), started=self._journal.open_claims()))

    # ---- what the worker says

    def _say(self, message: ipc.ToSupervisor) -> None:
        # Outcomes first: `Drained` must not overtake them.
        self._say_outcomes()
        if self._channel is not None:
            self._channel.say(message)

    def _report(self, outcome: Outcome) -> None:
        # Those of one turn of the loop travel together: a message for each would double the work of both sides.
        if not self._outcomes:
            asyncio.get_running_loop().call_soon(self._say_outcomes)
        self._outcomes.append(outcome)

    def _say_outcomes(self) -> None:
        if self._outcomes and self._channel is not None:
            outcomes, self._outcomes = self._outcomes, []
            self._channel.say(ipc.Outcomes(outcomes=outcomes))

    async def _beat(self, every: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._sender is not None and self._journal is not None:
            lag = max(0.0, loop.time() - due)
            if lag > LAGGING:
                log.warning("event loop lags", action="heartbeat", lag=round(lag, 3))
            rss = _rss()
            self._sender.watch_memory(rss)
            self._say(
                ipc.Heartbeat(
                    lag=lag,
                    devices=len(self._devices),
                    open_clients=self._transports.open_clients(),
                    in_flight=self._sender.in_flight,
                    sent=self._sender.sent,
                    failed=self._sender.failed,
                    rss=rss,
                    fds=_open_fds(),
                    connects=self._transports.connects(),
                    journal=self._journal.check(),
                )
            )
            due = loop.time() + every
            await asyncio.sleep(every)

    # ---- its end

    def _forget(self, claims: list[ClaimKey]) -> None:
        assert self._journal is not None
        try:
            self._journal.settled(claims)
        except JournalError as error:
            # Entries that are kept too long are harmless: settling is idempotent.
            log.warning("journal not trimmed", action="journal", error=str(error))

    def _hold(self, lease: ipc.Lease) -> None:
        if self._lease_end is not None:
            self._lease_end.cancel()
        self._lease_end = asyncio.get_running_loop().call_later(lease.left, self._lease_over, lease.grace)

    def _lease_over(self, grace: float) -> None:
        log.warning("the lease was not renewed: the shard may be another node's", action="lease")
        self._start(self._drain(grace, unheard=True))

    def _leave(self) -> None:
        log.warning("told to end: finishing what has started", action="leave")
        self._say(ipc.Leaving())
        self._start(self._drain(ORPHAN_GRACE))

    def _start(self, step: Coroutine[Any, Any, None], message: Any = None) -> None:
        """Take a step in a task of its own. `message`: what asked for it, which alone is lost when the step fails."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled() or (error := task.exception()) is None:
                return
            if message is not None and isinstance(error, Exception):
                self.failed(message, error)
                return
            if isinstance(error, SharddError):
                log.error("worker cannot go on", action="worker", error=str(error))
            else:
                log.error("worker cannot go on", action="worker", exc_info=error)
            _say_at_the_end(str(error) if isinstance(error, SharddError) else f"{type(error).__name__}: {error}")
            self._end(70)

        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _tell_defect(self, text: str) -> None:
        log.error(text, action="defect")
        self._say(ipc.Defect(text))

    def _fail(self, text: str) -> None:
        """Finish what has started, then end for this reason."""
        _say_at_the_end(text)
        self._start(self._drain(ORPHAN_GRACE, code=70))

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)


def _say_at_the_end(text: str) -> None:
    """To stderr, which the supervisor keeps in a file and reads when the worker is gone (see `stderr_tail`)."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _open_fds() -> int:
    return sum(1 for _ in os.scandir("/proc/self/fd"))


def _rss() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # once a second in every worker: no Path object for it
        return int(file.read().split()[1]) * resource.getpagesize()
