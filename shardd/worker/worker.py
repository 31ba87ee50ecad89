"""A worker: one process, one event loop, the clients of one shard's devices.

It does what its supervisor requests, and has no queue and no timers per device. Its heartbeat comes from the event loop, so that
a hung loop is noticed. When the supervisor is gone it finishes what it has started and exits.
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
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never

from shardd import ipc
from shardd.channel import Channel
from shardd.errors import ErrorClass, JournalError, JournalHeldError, SharddError
from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.ipc import ClaimKey, DeviceSpec, JobSpec, Outcome
from shardd.journal import Journal
from shardd.logs import get_logger, set_log_level
from shardd.opt_out_words import OptOutWords
from shardd.states import DeviceState, Verdict
from shardd.tasks import TaskSet
from shardd.transports.base import Surroundings
from shardd.wire import OutOfSyncError, Undecodable, Unencodable, worker_reader
from shardd.worker.lease import WorkerLease
from shardd.worker.opt_out_questions import OptOutQuestions
from shardd.worker.role import Role
from shardd.worker.sender import Sender
from shardd.worker.transports import Transports

log = get_logger(__name__)

ORPHAN_GRACE: Final = 5.0
"""Seconds that a worker without a supervisor gives what it has started."""
LOCK_WAIT: Final = 30.0
"""Seconds that a new worker waits for the journal of its predecessor."""
LAGGING: Final = 1.0
"""Seconds of loop lag that are logged."""


class Worker:
    """Gets its setup, then messages, until it is drained or orphaned."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._channel: Channel | None = None
        self._journal: Journal | None = None
        self._spool: IncomingSpool | None = None
        self._sender: Sender | None = None
        self._transports = Transports({}, Surroundings(), self)
        self._devices: dict[str, DeviceSpec] = {}
        self._outcomes: list[Outcome] = []
        self._questions = OptOutQuestions(self._send)
        self._arrived = 0
        self._ended = asyncio.Event()
        self._exit_code = 0
        self._tasks = TaskSet()
        self._sigterm = asyncio.Event()
        self._lease = WorkerLease(self._lease_over)
        self._store_access: ipc.StoreAccess | None = None

    async def run(self, sock: socket.socket) -> int:
        """Run until the end; returns the exit code."""
        self._channel = await Channel.connect(sock, worker_reader(), self)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._sigterm.set)
        self._start(self._stop_on_sigterm())
        if self._role.waits:
            self._send(ipc.Loaded())
        try:
            await self._ended.wait()
        finally:
            await self._tasks.end()
            await self._transports.close()
            self._channel.close()
            if self._journal is not None:
                self._journal.close()
        return self._exit_code

    # ---- transports.base.Events

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        """A transport learned something about a device."""
        self._send(
            ipc.DeviceChanged(device_id=device_id, state=DeviceState(state), reason=reason, until=until, at=time.time())
        )

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        """A message was delivered or read, or a device of its recipient could not decrypt it."""
        self._send(ipc.Receipt(device_id=device_id, message_ids=message_ids, kind=kind, at=at, by=by))

    def incoming(self, name: str | None, message: Incoming) -> int:
        """A message was received."""
        self._arrived += 1
        self._send(ipc.Arrived(name=name, unspooled=message if name is None else None))
        return self._arrived

    def defect(self, text: str) -> None:
        """Something was lost through a bug of shardd or of a library."""
        self._report_defect(text)

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        """A device was online, or a visit failed."""
        self._send(ipc.Visited(device_id=device_id, online=online, at=time.time(), presence=presence, note=note))

    def login_answered(self, device_id: str, *, outdated: bool) -> None:
        """A login was accepted, or the version of the library refused."""
        self._send(ipc.LoginAnswered(device_id=device_id, outdated=outdated))

    def clients_changed(self, opened: list[str], closed: list[str], openings: int) -> None:
        """Clients were opened or closed, or more or fewer can be opened at a time."""
        self._send(ipc.Clients(opened=opened, closed=closed, openings=openings))

    # ---- channel.Listener

    def received(self, message: ipc.ToWorker) -> None:  # noqa: C901, PLR0912  # one case for each type of message
        """A message of the supervisor."""
        match message:
            case ipc.Setup():
                self._start(self._set_up(message))
            case ipc.SendJob():
                if self._sender is not None:
                    self._sender.take(message.job, message.again)
            case ipc.Settled():
                self._forget(message.claims)
            case ipc.Devices():
                self._start(self._change_devices(message), message)
            case ipc.Close():
                self._start(self._close_device(message), message)
            case ipc.Visit():
                self._start(self._visit(message), message)
            case ipc.HoldLogins():
                self._transports.hold_logins(message.transport, held=message.held)
            case ipc.Drain():
                self._start(self._drain(message.timeout, memory=message.memory))
            case ipc.Lease():
                self._lease.set(message)
            case ipc.LogLevel():
                set_log_level(message.level)
            case ipc.Audit():
                self._answer_audit(message.request)
            case ipc.OptOutAnswer():
                self._questions.answered(message)
            case ipc.ChangeStoreAccess():
                self._store_access = message.access
                self._transports.change_store_access(message.access)
            case ipc.OptOutsHeard():
                self._questions.heard(message.addresses)
            case _:
                assert_never(message)

    def undecodable(self, what: Undecodable) -> None:
        """A message that cannot be decoded: if it was a job, that job ends; without its setup the worker ends."""
        text = f"a message of the supervisor cannot be decoded: {what}"
        if what.item is JobSpec and what.fields.keys() >= ipc.CLAIM_FIELDS:
            claim: dict[str, Any] = {name: what.fields[name] for name in ipc.CLAIM_FIELDS}
            outcome = Outcome(
                **claim, verdict=Verdict.TRANSIENT, error=text, error_class=ErrorClass.WORKER, at=time.time()
            )
            self._report(outcome)
        self._report_defect(text)
        if what.kind == "setup" and what.item is None:
            self._fail(text)

    def unencodable(self, what: Unencodable) -> None:
        """A message that the supervisor does not get; of an outcome, what can be encoded is sent."""
        self._report_defect(f"{type(what.item).__name__} cannot be encoded for the supervisor: {what.why}")
        if isinstance(what.item, Outcome):
            known = what.item
            least = Outcome(*known.key, known.verdict, known.message_id, at=known.at)
            if least != known:
                self._report(least)

    def failed(self, message: Any, error: Exception) -> None:
        """Handling a message raised this."""
        self._report_defect(f"{type(message).__name__} could not be handled: {type(error).__name__}: {error}", error)

    def out_of_sync(self, error: OutOfSyncError) -> None:
        """None of its messages can be decoded any more."""
        text = f"the supervisor's messages cannot be decoded any more: {error}"
        self._report_defect(text)
        self._fail(text)

    def disconnected(self) -> None:
        """The supervisor is gone."""
        if self._role.waits:
            self._end(0)
        elif not self._ended.is_set():
            log.warning("supervisor is gone: finishing what has started", action="orphan")
            self._start(self._drain(ORPHAN_GRACE, disconnected=True))

    # ---- what it does

    async def _set_up(self, setup: ipc.Setup) -> None:
        self._role.serve(setup.shard)
        self._devices = {device.id: device for device in setup.devices}
        self._journal = await self._open_journal(setup)
        self._journal.begin()
        state_dir = Path(setup.journal).parent.parent
        self._spool = IncomingSpool(state_dir)
        surroundings = Surroundings(
            shard=setup.shard,
            record_dir=state_dir / "sandbox",
            sessions_dsn=setup.sessions_dsn,
            # A change may have come while the journal was being opened.
            store_access=self._store_access or setup.store_access,
            opt_out_words=OptOutWords(setup.opt_out_words, setup.take_back_words),
            spool=self._spool,
            inbox=setup.inbox,
            inbox_media=setup.inbox_media,
            may_pass=self._lease.may_pass,
        )
        self._transports = Transports(setup.transports, surroundings, self)
        self._sender = Sender(
            journal=self._journal,
            transports=self._transports,
            devices=self._devices,
            events=self,
            report=self._report,
            send_timeout=setup.send_timeout,
            rss=_rss,
            opted_out=self._questions.opted_out,
            may_start=self._lease.may_start,
            careful=setup.careful_for > 0,
        )
        asyncio.get_running_loop().call_later(setup.careful_for, self._sender.relax)
        self._send(ipc.Clients(anew=True))
        for name in {device.transport for device in self._devices.values()}:
            await self._transports.load(name)
        self._start(self._beat(setup.heartbeat_every))
        self._send(ipc.Ready(rss=_rss()))

    async def _open_journal(self, setup: ipc.Setup) -> Journal:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                return Journal.open(Path(setup.journal), state=setup.state_id, shard=setup.shard, fsync=setup.fsync)
            except JournalHeldError:
                if time.monotonic() > deadline:
                    raise
                # flock has no timeout; the predecessor is about to end.
                await asyncio.sleep(0.02)

    async def _change_devices(self, message: ipc.Devices) -> None:
        sessions_changed = []
        for device in message.changed:
            before = self._devices.get(device.id)
            if before is not None and before.session != device.session:
                sessions_changed.append(device.id)
            self._devices[device.id] = device
        for device_id in message.removed:
            await self._close_client(device_id)
            self._devices.pop(device_id, None)
        for device_id in sessions_changed:
            # Another process may use its old session now, or unlink it.
            await self._close_client(device_id)

    async def _close_device(self, message: ipc.Close) -> None:
        await self._close_client(message.device_id)
        self._send(ipc.Closed(request=message.request))

    async def _close_client(self, device_id: str) -> None:
        device = self._devices.get(device_id)
        transport = self._transports.get(device.transport) if device is not None else None
        if transport is not None and self._sender is not None:
            async with self._sender.lock_of(device_id):
                await transport.close_device(device_id)

    async def _visit(self, message: ipc.Visit) -> None:
        if self._sender is not None:
            await self._sender.visit(message.device_id, late=message.late, probe=message.probe)

    async def _drain(
        self, timeout: float, *, code: int = 0, memory: int | None = None, disconnected: bool = False
    ) -> None:
        if self._sender is not None:
            await self._sender.drain(timeout, memory=memory, disconnected=disconnected)
        self._send_outcomes()
        self._end(code)

    def _answer_audit(self, request: int) -> None:
        if self._journal is None or self._sender is None:
            return
        for outcome in self._journal.open_outcomes():
            # Each in its own message: an outcome that made one undecodable affects no other.
            self._send(ipc.Outcomes(outcomes=[outcome]))
        self._send(ipc.AuditReply(request=request, claims=self._sender.claims(), started=self._journal.open_claims()))

    def _send(self, message: ipc.ToSupervisor) -> None:
        # Outcomes first: an AuditReply must not overtake them.
        self._send_outcomes()
        if self._channel is not None:
            self._channel.send(message)

    def _report(self, outcome: Outcome) -> None:
        # Those of one turn of the loop share a message: one for each would double the work of both sides.
        if not self._outcomes:
            asyncio.get_running_loop().call_soon(self._send_outcomes)
        self._outcomes.append(outcome)

    def _send_outcomes(self) -> None:
        if self._outcomes and self._channel is not None:
            outcomes, self._outcomes = self._outcomes, []
            self._channel.send(ipc.Outcomes(outcomes=outcomes))

    async def _beat(self, every: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._sender is not None and self._journal is not None:
            lag = max(0.0, loop.time() - due)
            if lag > LAGGING:
                log.warning("event loop lags", action="heartbeat", lag=round(lag, 3))
            self._lease.check()
            rss = _rss()
            self._sender.watch_memory(rss)
            self._send(
                ipc.Heartbeat(
                    lag=lag,
                    open_clients=self._transports.open_clients(),
                    rss=rss,
                    fds=_open_fds(),
                    connects=self._transports.connects(),
                    journal=self._journal.check(),
                    spool=None if self._spool is None else self._spool.check(),
                    previews_left_out=self._transports.previews_left_out(),
                    gave_way=self._transports.gave_way(),
                )
            )
            due = loop.time() + every
            await asyncio.sleep(every)

    def _forget(self, claims: list[ClaimKey]) -> None:
        if self._journal is None:
            return
        try:
            self._journal.settled(claims)
        except JournalError as error:
            # Entries that stay too long are harmless: settling is idempotent.
            log.warning("journal not trimmed", action="journal", error=str(error))

    # ---- its end

    def _lease_over(self) -> None:
        log.warning("the lease was not renewed: another node may soon have the shard", action="lease")
        # If the supervisor lives it must not hand over again what is returned, nor blame a job.
        self._send(ipc.Stopping())
        self._start(self._drain(self._lease.left_to_finish(), disconnected=True))

    async def _stop_on_sigterm(self) -> None:
        await self._sigterm.wait()
        log.warning("SIGTERM: finishing what has started", action="stop")
        self._send(ipc.Stopping())
        await self._drain(ORPHAN_GRACE)

    def _start(self, step: Coroutine[Any, Any, None], message: Any = None) -> None:
        """Run a step in a task. `message`: what requested it; only that is lost if the step fails. Else the worker ends."""
        self._tasks.start(step, self._failed_for_good if message is None else partial(self.failed, message))

    def _failed_for_good(self, error: Exception) -> None:
        if isinstance(error, SharddError):
            text = str(error)
            log.error("worker failed", action="worker", error=text)
        else:
            text = f"{type(error).__name__}: {error}"
            log.error("worker failed", action="worker", exc_info=error)
        _print_last_error(text)
        self._end(70)

    def _report_defect(self, text: str, error: Exception | None = None) -> None:
        log.error(text, action="defect", exc_info=error)
        self._send(ipc.Defect(text))

    def _fail(self, text: str) -> None:
        """Finish what has started, then end for this reason."""
        _print_last_error(text)
        self._start(self._drain(ORPHAN_GRACE, code=70))

    def _end(self, code: int) -> None:
        if not self._ended.is_set():
            self._exit_code = code
            self._ended.set()


def _print_last_error(text: str) -> None:
    """To stderr, which the supervisor reads when the worker is gone (see `shardd.supervisor.workers.process`)."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _open_fds() -> int:
    # Linux 6.2 and later tell how many they are: thousands of names, once a second in each worker, take a share of a CPU.
    return Path("/proc/self/fd").stat().st_size or sum(1 for _ in os.scandir("/proc/self/fd"))


def _rss() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # once a second in every worker: no Path object for it
        return int(file.read().split()[1]) * resource.getpagesize()
