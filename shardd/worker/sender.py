"""Sends jobs through their transports, and reports what is known about each afterwards.

The order of the steps is the promise of shardd: journal `preparing` → fetch → the device's lock → prepare → check of opt-outs →
check of the lease → journal `started` → deliver → journal `outcome` → report. A failure before `started` is harmless, because
nothing has left; after it, only positive proof counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from shardd.errors import (
    DeviceUnavailableError,
    ErrorClass,
    ExpiredError,
    InDoubtError,
    JournalError,
    OptedOutError,
    PermanentError,
    SendError,
    TransientError,
)
from shardd.ipc import ClaimKey, DeviceSpec, JobSpec, Outcome
from shardd.journal import Journal
from shardd.logs import get_logger
from shardd.persons import recipient_at
from shardd.states import DeviceState, Verdict
from shardd.transports.base import Events, Sent, Transport
from shardd.worker.start_gate import StartGate
from shardd.worker.transports import Transports

log = get_logger(__name__)

JOURNAL_RETRY: Final = 5.0
"""Seconds before a device is tried again after its journal refused a line; the next heartbeat reports it."""
TRANSPORT_RETRY: Final = 60.0
"""Seconds before a device is tried again whose transport could not be loaded: installing a library takes an operator."""
VISIT_WAIT: Final = 10.0
"""Seconds for which a visit waits until its device is not used otherwise: a send of it may hang."""
GAVE_WAY: Final = "the visit gave way to another use of its device"
GROWTH_SHARE: Final = 0.25
"""Of the memory that a worker may take: a job that was prepared alone is at fault if the worker grew by this much meanwhile."""
_VERDICTS: Final[dict[type[SendError], Verdict]] = {
    PermanentError: Verdict.PERMANENT,
    TransientError: Verdict.TRANSIENT,
    ExpiredError: Verdict.EXPIRED,
    OptedOutError: Verdict.OPTED_OUT,
    DeviceUnavailableError: Verdict.UNAVAILABLE,
    InDoubtError: Verdict.IN_DOUBT,
}


class _LeaseOverError(Exception):
    """Another node may soon have the shard: what has not started does not start."""


@dataclass(slots=True)
class InFlightJob:
    """A job that has begun, and how far it has got."""

    job: JobSpec
    task: asyncio.Task[None]
    deadline: float | None = None
    """On the loop's clock; None: its task has not taken its first step."""
    late: bool = False
    """Cancelled because its deadline has passed."""
    preparing: bool = False
    """The journal has it."""
    started: bool = False
    """The journal has it: the message may have left."""
    suspect: bool = False
    """Cancelled because the worker is replaced for its memory."""
    alone: bool = False
    """No other job is in flight until this one has ended."""
    memory: int = 0
    """Bytes that the worker took when this began, if it is alone."""
    growth: int = 0
    """The most bytes that the worker has grown by since."""


class Sender:
    """Sends the jobs of one worker, one at a time per device."""

    def __init__(
        self,
        *,
        journal: Journal,
        transports: Transports,
        devices: dict[str, DeviceSpec],
        events: Events,
        report: Callable[[Outcome], None],
        send_timeout: float,
        rss: Callable[[], int],
        opted_out: Callable[[str, Sequence[str]], Awaitable[bool]],
        may_start: Callable[[], bool],
        careful: bool = False,
    ) -> None:
        """`opted_out`: see `OptOutQuestions`; `rss`: the bytes that this process takes now; `careful`: see `StartGate`.

        `may_start`: whether the node's lease is good enough to hand a message over.
        """
        self._rss = rss
        self._opted_out = opted_out
        self._may_start = may_start
        self._journal = journal
        self._transports = transports
        self._devices = devices
        self._events = events
        self._report = report
        self._send_timeout = send_timeout
        self._visits: set[str] = set()
        """Devices whose visit waits or runs."""
        self._again: dict[str, float | None] = {}
        """By device, of the last job that was taken."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_flight: dict[ClaimKey, InFlightJob] = {}
        self._gate = StartGate(self._begin, later=asyncio.get_running_loop().call_soon, careful=careful)
        self._records_all = False
        self._outgrown = 0
        self._watch: asyncio.TimerHandle | None = None
        self._draining = False

    def claims(self) -> list[ClaimKey]:
        """The claims in flight."""
        return [*self._in_flight, *self._gate.waiting]

    def take(self, job: JobSpec, again: float | None = None) -> None:
        """Begin to send a job; `again`: see `ipc.SendJob`."""
        if self._draining:
            self._report(_outcome(job, Verdict.RETURNED))
        else:
            self._again[job.device_id] = again
            self._gate.offer(job)

    def relax(self) -> None:
        """No longer send one job at a time."""
        self._gate.relax()

    def watch_memory(self, rss: int) -> None:
        """The process takes this much now: note how much it has grown since a job began that is prepared alone."""
        for entry in self._in_flight.values():
            if entry.alone:
                entry.growth = max(entry.growth, rss - entry.memory)

    async def drain(self, timeout: float, *, memory: int | None = None, disconnected: bool = False) -> None:
        """Return what has not started, give the others `timeout` seconds to end, and call what is left in doubt.

        `memory`: the bytes that the worker has outgrown, if that is why; what is being prepared is suspect then.
        `disconnected`: outcomes cannot be reported any more, so all of them go to the journal.
        """
        self._draining, self._records_all = True, self._records_all or disconnected
        self._outgrown = memory or self._outgrown
        for job in self._gate.close():
            self._report(_outcome(job, Verdict.RETURNED))
        for claim, entry in list(self._in_flight.items()):
            if entry.deadline is None:
                # A task that is cancelled before its first step runs none of its code, not even the report.
                del self._in_flight[claim]
                self._report(_outcome(entry.job, Verdict.RETURNED))
            if not entry.started:
                entry.suspect = entry.suspect or (memory is not None and entry.preparing)
                entry.task.cancel()
        await self._wait(timeout)
        for entry in list(self._in_flight.values()):
            entry.task.cancel()
        # Cancelled tasks end at once, unless a transport swallows the cancellation; then the journal decides.
        await self._wait(1.0)

    async def visit(self, device_id: str, *, late: bool = False, probe: bool = False) -> None:
        """Open a device for a moment, to hear what was sent to it; what came of it is reported. See `ipc.Visit`."""
        device = self._devices.get(device_id)
        if device is None or device_id in self._visits:
            return
        self._visits.add(device_id)
        try:
            transport = await self._transport_of(device)
            async with transport.visit_turn(), self._lock_for_visit(device_id):
                device = self._devices.get(device_id)
                if device is not None and not self._draining:
                    await transport.visit(device, late=late, probe=probe)
        except DeviceUnavailableError as error:
            if device is not None:
                self._note_state(error, device)
            self._events.visited(device_id, online=False, note=str(error))
        except Exception as error:
            # Or it would be requested again, and fail, every few minutes.
            self._events.visited(device_id, online=False, note=f"unexpected: {type(error).__name__}: {error}")
            raise
        finally:
            self._visits.discard(device_id)

    def lock_of(self, device_id: str) -> asyncio.Lock:
        """The lock under which a device is used."""
        return self._locks[device_id]

    @asynccontextmanager
    async def _lock_for_visit(self, device_id: str) -> AsyncIterator[None]:
        """The lock of a device. Raises DeviceUnavailableError if it is held for long."""
        lock = self.lock_of(device_id)
        try:
            async with asyncio.timeout(VISIT_WAIT):
                await lock.acquire()
        except TimeoutError:
            raise DeviceUnavailableError(GAVE_WAY) from None
        try:
            yield
        finally:
            lock.release()

    async def _wait(self, timeout: float) -> None:
        tasks = [entry.task for entry in self._in_flight.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def _begin(self, job: JobSpec, alone: bool) -> None:
        memory = self._rss() if alone else 0
        self._in_flight[job.key] = InFlightJob(job=job, task=asyncio.Task(self._send(job)), alone=alone, memory=memory)

    async def _send(self, job: JobSpec) -> None:
        entry = self._in_flight[job.key]
        self._set_deadline(entry)
        try:
            outcome = await self._outcome_of(job, entry)
            if entry.started or (entry.preparing and self._records_all):
                self._record(outcome)
        finally:
            del self._in_flight[job.key]
            self._gate.ended(job.key)
            self._expect(job.device_id)
        self._report(outcome)

    def _expect(self, device_id: str) -> None:
        device = self._devices.get(device_id)
        transport = None if device is None else self._transports.get(device.transport)
        if transport is not None:
            transport.expect(device_id, self._again.pop(device_id, None))

    async def _outcome_of(self, job: JobSpec, entry: InFlightJob) -> Outcome:
        device = self._devices.get(job.device_id)
        if device is None:
            # It left this shard; or it never came, because its message was lost.
            return _outcome(job, Verdict.UNAVAILABLE, "this worker does not know its device", ErrorClass.DEVICE)
        try:
            sent = await self._fetch_and_deliver(device, job, entry)
            return _outcome(
                job, Verdict.SENT, message_id=sent.message_id, members_without_keys=sent.members_without_keys
            )
        except SendError as error:
            return self._outcome_of_error(error, job, device)
        except JournalError as error:
            return _outcome(job, Verdict.UNAVAILABLE, str(error), ErrorClass.WORKER, retry_after=JOURNAL_RETRY)
        except (_LeaseOverError, asyncio.CancelledError):
            return self._cancelled(job, entry)
        except Exception as error:
            # A defect in a transport must neither end the worker's other devices nor be taken for an outcome.
            log.exception("send failed unexpectedly", action="send", device=job.device_id, job=job.id)
            verdict = Verdict.IN_DOUBT if entry.started else Verdict.TRANSIENT
            return _outcome(job, verdict, f"unexpected: {type(error).__name__}: {error}", ErrorClass.UNKNOWN)

    def _cancelled(self, job: JobSpec, entry: InFlightJob) -> Outcome:
        if entry.started:
            if entry.late:
                error, error_class = f"no answer within {self._send_timeout:g} s", ErrorClass.TIMEOUT
            else:
                error, error_class = "the worker had to stop before the answer came", ErrorClass.WORKER
            return _outcome(job, Verdict.IN_DOUBT, error, error_class)
        if entry.late:
            error = f"not ready to send within {self._send_timeout:g} s"
            return _outcome(job, Verdict.TRANSIENT, error, ErrorClass.TIMEOUT)
        if not entry.suspect or (entry.alone and entry.growth < self._outgrown * GROWTH_SHARE):
            # If the worker was large before, the next one, which begins small, shows whether it is this job.
            return _outcome(job, Verdict.RETURNED)
        error, verdict = (
            f"its worker grew beyond {self._outgrown:,} bytes while it was being prepared",
            Verdict.RETURNED,
        )
        if entry.alone and job.alone:
            error, verdict = f"{error}, also when no other was: by {entry.growth:,} bytes", Verdict.PERMANENT
        return _outcome(job, verdict, error, ErrorClass.WORKER, suspect=True)

    def _set_deadline(self, entry: InFlightJob) -> None:
        # One timer for all, since all have the same timeout: a timer for each would take a quarter of a quick send's CPU.
        loop = asyncio.get_running_loop()
        entry.deadline = loop.time() + self._send_timeout
        if self._watch is None:
            self._watch = loop.call_at(entry.deadline, self._cancel_late)

    def _cancel_late(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._watch = None
        for entry in self._in_flight.values():
            if entry.deadline is None or entry.late:
                continue
            if entry.deadline > now:
                # Those that follow began later.
                self._watch = loop.call_at(entry.deadline, self._cancel_late)
                return
            entry.late = True
            entry.task.cancel()

    async def _fetch_and_deliver(self, device: DeviceSpec, job: JobSpec, entry: InFlightJob) -> Sent:
        transport = await self._transport_of(device)
        _check_expiry(job)
        self._journal.preparing(job.key, alone=entry.alone)
        entry.preparing = True
        fetched = await transport.fetch(device, job)
        try:
            if transport.in_flight > 1:
                return await self._prepare_and_deliver(transport, device, job, entry, fetched)
            async with self.lock_of(device.id):
                # It may have got another session meanwhile; under the lock, nothing uses the old one.
                device = self._devices.get(device.id, device)
                return await self._prepare_and_deliver(transport, device, job, entry, fetched)
        finally:
            transport.discard(fetched)

    async def _transport_of(self, device: DeviceSpec) -> Transport:
        transport = self._transports.get(device.transport) or await self._transports.load(device.transport)
        if transport is None:
            raise DeviceUnavailableError(
                f"transport {device.transport!r} cannot be loaded",
                retry_after=TRANSPORT_RETRY,
                error_class=ErrorClass.WORKER,
            )
        return transport

    async def _prepare_and_deliver(
        self, transport: Transport, device: DeviceSpec, job: JobSpec, entry: InFlightJob, fetched: Any
    ) -> Sent:
        prepared = await transport.prepare(device, job, fetched)
        if job.heeds_opt_outs:
            address, others = recipient_at(job.recipient).address, transport.other_addresses(prepared)
            if await self._opted_out(address, others):
                raise OptedOutError("the recipient opted out")
        # Connecting and uploading may have taken long. From here to the hand-over nothing waits.
        _check_expiry(job)
        if not self._may_start():
            raise _LeaseOverError
        self._journal.started(job.key)
        entry.started = True
        return await transport.deliver(device, job, prepared)

    def _outcome_of_error(self, error: SendError, job: JobSpec, device: DeviceSpec) -> Outcome:
        verdict, text, kind = _VERDICTS[type(error)], str(error), error.error_class
        retry_after = error.retry_after
        if not isinstance(error, DeviceUnavailableError):
            return _outcome(job, verdict, text, kind, retry_after=retry_after)
        if (until := self._note_state(error, device)) is not None:
            retry_after = max(0.0, until - time.time())
        return _outcome(
            *(job, verdict, text, kind),
            retry_after=retry_after,
            device_state=None if error.state is None else DeviceState(error.state),
            whole_account=error.whole_account,
        )

    def _note_state(self, error: DeviceUnavailableError, device: DeviceSpec) -> float | None:
        """Report the state that a device turned out to be in; returns when it ends, in POSIX seconds."""
        if error.state is None:
            return None
        until = error.until.timestamp() if error.until else None
        self._events.device_changed(device.id, error.state, str(error), until)
        return until

    def _record(self, outcome: Outcome) -> None:
        try:
            self._journal.outcome(outcome)
        except JournalError:
            # The outcome still reaches the supervisor by message; only a crash in the next moment would lose it.
            log.exception("journal refused an outcome", action="journal", job=outcome.id)


def _outcome(
    job: JobSpec, verdict: Verdict, error: str | None = None, error_class: ErrorClass | None = None, **more: Any
) -> Outcome:
    """`more`: other fields of the outcome."""
    return Outcome(*job.key, verdict, error=error, error_class=error_class, at=time.time(), **more)


def _check_expiry(job: JobSpec) -> None:
    if job.expires_at is not None and time.time() >= job.expires_at:
        raise ExpiredError("not sent before expires_at")
