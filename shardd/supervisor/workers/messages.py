"""What a worker says and who hears it; what could not be read or said; and the audit that finds claims which got lost.

Whatever is wrong with one message costs only what it carried. A claim whose message was lost on the way does not stay
`sending`: the worker is asked what it has, and what it has not is settled as its journal says.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shardd import ipc
from shardd.errors import ErrorClass, SharddError
from shardd.ipc import DeviceSpec, JobSpec, Outcome
from shardd.logs import get_logger
from shardd.queue.settle import Claim
from shardd.states import ShardState, Verdict
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.shard import Shard
from shardd.wire import Unread, Unsent

log = get_logger(__name__)

AUDIT_AGAIN: Final = 10.0
"""Seconds after an audit was asked for before another may be."""
CLOSE_TIMEOUT: Final = 30.0
"""Seconds that a device's send may take before its client can be closed."""
LOST_JOB: Final = "the message to the worker, or the one that told what became of the job, could not be read"


class Claims(Protocol):
    """What is in flight, and what becomes of it."""

    def outcomes(self, shard: int, outcomes: Iterable[Outcome]) -> None:
        """Claims of a shard ended."""

    def in_flight(self, shard: int) -> list[Claim]:
        """What a shard has in flight."""

    def shard_up(self, shard: int, epoch: int) -> None:
        """A shard's worker takes jobs."""

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs."""


class Defects(Protocol):
    """Where defects of shardd itself are reported."""

    def note(self, text: str, *, shard: int | None = None, error: BaseException | None = None) -> None:
        """Something happened that must not."""


class ClientClosings:
    """The requests that are not answered yet."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def close(self, process: WorkerProcess, device_id: str) -> None:
        """Close a device's client in this worker; when the worker dies, its client is gone too. Raises SharddError."""
        request = next(self._ids)
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        gone = asyncio.ensure_future(process.gone.wait())
        try:
            process.say(ipc.Close(devices=[device_id], request=request))
            done, _ = await asyncio.wait([future, gone], timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            del self._waiting[request]
        if not done:
            raise SharddError(
                f"device {device_id} is still sending after {CLOSE_TIMEOUT:g} s: pause it, then try again"
            )

    def closed(self, request: int) -> None:
        """A worker's answer."""
        future = self._waiting.get(request)
        if future is not None and not future.done():
            future.set_result(None)


@dataclass(frozen=True, slots=True)
class MessageHandlers:
    """Who hears what workers say."""

    claims: Claims
    defects: Defects
    closings: ClientClosings
    device_changed: Callable[[ipc.DeviceChanged, int], None]
    """With the epoch of the shard's lease."""
    receipt: Callable[[ipc.Receipt], None]
    opted_out: Callable[[ipc.OptedOut], None]
    untold: Callable[[DeviceSpec, str], None]
    """A device that no worker can be told of, and why."""


class WorkerMessages:
    """Of one worker process; `say` reaches it, `ready` is called when it takes jobs."""

    def __init__(
        self,
        shard: Shard,
        handlers: MessageHandlers,
        *,
        say: Callable[[ipc.ToWorker], object],
        ready: Callable[[], None],
    ) -> None:
        self._shard = shard
        self._handlers = handlers
        self._say = say
        self._ready = ready
        self._requests = 0
        self._audited: list[Claim] | None = None
        """What was in flight when the audit was asked for that is not answered yet."""
        self._audit_asked = -AUDIT_AGAIN
        self._audit_later: asyncio.TimerHandle | None = None

    # ---- what arrives

    def heard(self, message: ipc.ToSupervisor) -> None:  # noqa: C901  # one case for each thing that a worker says
        """A message."""
        to, shard = self._handlers, self._shard
        match message:
            case ipc.Outcomes():
                to.claims.outcomes(shard.index, message.outcomes)
            case ipc.Ready():
                self._ready()
            case ipc.Heartbeat():
                self._hear_journal(message.journal)
            case ipc.Leaving():
                shard.told_to_end = True
                to.claims.shard_down(shard.index)
            case ipc.DeviceChanged() if shard.epoch is not None:
                to.device_changed(message, shard.epoch)
            case ipc.Receipt():
                to.receipt(message)
            case ipc.OptedOut():
                to.opted_out(message)
            case ipc.Closed():
                to.closings.closed(message.request)
            case ipc.Defect():
                to.defects.note(message.text, shard=shard.index)
                self.audit()
            case ipc.InFlight() if message.request == self._requests:
                self._end_audit(message)

    def unread(self, what: Unread) -> None:
        """A message, or one outcome of it, that cannot be read."""
        self._handlers.defects.note(f"what the worker says cannot be read: {what}", shard=self._shard.index)
        if what.item is Outcome and what.fields.keys() >= {"id", "epoch", "attempt", "token"}:
            # What can be read of it is true; without the verdict, only the worker knows.
            known: dict[str, Any] = {
                "verdict": Verdict.IN_DOUBT,
                "error": LOST_JOB,
                "error_class": ErrorClass.WORKER,
                "at": time.time(),
            }
            self._handlers.claims.outcomes(self._shard.index, [Outcome(**(known | what.fields))])
        else:
            self.audit()

    def failed(self, message: object, error: Exception) -> None:
        """Hearing a message raised this."""
        subject = message.item if isinstance(message, Unsent) else message
        text = f"{type(subject).__name__} could not be handled: {type(error).__name__}: {error}"
        self._handlers.defects.note(text, shard=self._shard.index, error=error)
        self._shard.last_error = text
        self.audit()

    def _hear_journal(self, trouble: str | None) -> None:
        """Whether the worker's journal can be relied upon: only then may it get jobs."""
        shard, claims = self._shard, self._handlers.claims
        before, shard.journal_trouble = shard.journal_trouble, trouble
        if before == trouble:
            return
        if trouble is not None:
            log.error("the journal cannot be relied upon", action="journal", shard=shard.index, error=trouble)
            claims.shard_down(shard.index)
        else:
            log.info("the journal can be relied upon again", action="journal", shard=shard.index, before=before)
            if shard.state is ShardState.RUNNING and shard.epoch is not None:
                claims.shard_up(shard.index, shard.epoch)

    def out_of_step(self) -> None:
        """Nothing that it says can be read any more: it gets no more jobs."""
        self._shard.told_to_end = True
        self._handlers.claims.shard_down(self._shard.index)

    # ---- what could not be said

    def unsent(self, what: Unsent) -> None:
        """What the worker does not hear, because it cannot be encoded."""
        match what.item:
            case JobSpec() as job:
                outcome = Outcome(
                    *job.key,
                    Verdict.PERMANENT,
                    error=f"this job cannot be handed to a worker: {what.why}",
                    error_class=ErrorClass.CONTENT,
                    at=time.time(),
                )
                self._handlers.claims.outcomes(self._shard.index, [outcome])
            case DeviceSpec() as device:
                log.error(
                    "the worker cannot be told of a device",
                    action="device",
                    shard=self._shard.index,
                    device=device.id,
                    error=what.why,
                )
                self._handlers.untold(device, what.why)
            case message:
                text = f"{type(message).__name__} cannot be said to the worker: {what.why}"
                self._handlers.defects.note(text, shard=self._shard.index)
                self._shard.last_error = text

    # ---- the audit

    def audit(self) -> None:
        """Ask the worker what it has; claims that it knows nothing of are settled when it answers."""
        now = time.monotonic()
        if now < (again := self._audit_asked + AUDIT_AGAIN):
            if self._audit_later is None:
                self._audit_later = asyncio.get_running_loop().call_later(again - now, self._audit_again)
            return
        self._audit_asked, self._audit_later = now, None
        self._requests += 1
        # Whatever is in flight now was said before this, and an outcome that is known now is said before the answer.
        self._audited = self._handlers.claims.in_flight(self._shard.index)
        self._say(ipc.Audit(request=self._requests))

    def _audit_again(self) -> None:
        # The loop may call a moment early: then this is put off once more.
        self._audit_later = None
        self.audit()

    def _end_audit(self, answer: ipc.InFlight) -> None:
        audited, self._audited = self._audited or [], None
        has, may_have_left = set(answer.claims), set(answer.started)
        still = {claim.key for claim in self._handlers.claims.in_flight(self._shard.index)}
        lost = [claim for claim in audited if claim.key in still - has]
        outcomes = [
            Outcome(
                *claim.key,
                Verdict.IN_DOUBT if claim.key in may_have_left else Verdict.TRANSIENT,
                error=LOST_JOB,
                error_class=ErrorClass.WORKER,
                at=time.time(),
            )
            for claim in lost
        ]
        if outcomes:
            log.warning("claims that no worker has", action="audit", shard=self._shard.index, jobs=len(outcomes))
            self._handlers.claims.outcomes(self._shard.index, outcomes)
