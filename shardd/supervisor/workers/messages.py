"""Handling of a worker's messages, those that cannot be decoded or encoded included; and the audit of lost claims.

Whatever is wrong with one message costs only what it carried. A claim whose message was lost does not stay `sending`: the audit
asks the worker which claims it has, and settles the others as its journal says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

from shardd import ipc
from shardd.errors import ErrorClass
from shardd.ipc import DeviceSpec, JobSpec, Outcome
from shardd.logs import get_logger
from shardd.queue.settle import Claim
from shardd.states import ShardState, Verdict
from shardd.supervisor.defects import Defects
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.shard import Shard
from shardd.wire import OutOfSyncError, Undecodable, Unencodable

log = get_logger(__name__)

AUDIT_EVERY: Final = 10.0
"""Seconds between audits, at least."""
LOST_MESSAGE: Final = "the message that handed the job over, or the one with its outcome, could not be decoded"


class Dispatch(Protocol):
    """What this package needs from the router."""

    def shard_up(self, shard: int, epoch: int) -> None:
        """A shard's worker takes jobs."""

    def shard_down(self, shard: int) -> None:
        """A shard's worker takes no more jobs."""

    def outcomes(self, shard: int, outcomes: Iterable[Outcome]) -> None:
        """Claims of a shard ended."""

    def clients_changed(self, shard: int, report: ipc.Clients) -> None:
        """A shard's worker opened or closed clients."""

    def in_flight(self, shard: int) -> list[Claim]:
        """What a shard has in flight."""

    def sent_by(self, shard: int) -> int:
        """How many messages a shard has sent since the supervisor's start."""


@dataclass(frozen=True, slots=True)
class MessageHandlers:
    """The receivers of what workers report."""

    dispatch: Dispatch
    defects: Defects
    device_changed: Callable[[ipc.DeviceChanged, int], None]
    """With the epoch of the shard's lease."""
    receipt: Callable[[ipc.Receipt], None]
    opt_out_asked: Callable[[int, ipc.OptOutQuestion], None]
    """With the shard."""
    arrived: Callable[[ipc.Arrived], None]
    visited: Callable[[ipc.Visited], None]
    login_answered: Callable[[ipc.LoginAnswered], None]
    unencodable_device: Callable[[DeviceSpec, str], None]
    """A device whose settings cannot be sent to a worker, and why."""


class WorkerMessages:
    """The messages of one worker process (`shardd.channel.Listener`); `ready` is called when it takes jobs."""

    def __init__(
        self, shard: Shard, process: WorkerProcess, handlers: MessageHandlers, ready: Callable[[], None]
    ) -> None:
        self._shard = shard
        self._process = process
        self._handlers = handlers
        self._dispatch = handlers.dispatch
        self._ready = ready
        self._requests = 0
        self._audited: list[Claim] | None = None
        """What was in flight when the audit began whose answer is awaited."""
        self._audited_at = -AUDIT_EVERY
        self._audit_later: asyncio.TimerHandle | None = None

    # ---- what arrives

    def received(self, message: ipc.ToSupervisor) -> None:  # noqa: C901, PLR0912  # one case for each type of message
        """A message of the worker."""
        handlers, shard = self._handlers, self._shard
        match message:
            case ipc.Outcomes():
                self._dispatch.outcomes(shard.index, message.outcomes)
            case ipc.Ready():
                self._process.ready(message)
                self._ready()
            case ipc.Heartbeat():
                self._process.heartbeat(message)
                self._note_journal(message.journal)
                shard.spool_error = message.spool
            case ipc.Stopping():
                self._stop_dispatch()
            case ipc.DeviceChanged():
                if self._process.epoch is not None:
                    # Not the shard's present one: what a late report says may no longer be true under another lease.
                    handlers.device_changed(message, self._process.epoch)
            case ipc.Receipt():
                handlers.receipt(message)
            case ipc.OptOutQuestion():
                handlers.opt_out_asked(shard.index, message)
            case ipc.Arrived():
                handlers.arrived(message)
                self._process.arrived += 1
            case ipc.Visited():
                handlers.visited(message)
            case ipc.LoginAnswered():
                handlers.login_answered(message)
            case ipc.Clients():
                self._dispatch.clients_changed(shard.index, message)
            case ipc.Defect():
                handlers.defects.note(message.text, shard=shard.index)
                self.audit()
            case ipc.AuditReply():
                if message.request == self._requests:
                    self._end_audit(message)
            case ipc.Closed():
                self._process.client_closed(message.request)
            case ipc.Loaded():
                pass  # it was a spare one until now
            case _:
                assert_never(message)

    def undecodable(self, what: Undecodable) -> None:
        """A message, or one outcome of it, that cannot be decoded."""
        self._handlers.defects.note(f"a message of the worker cannot be decoded: {what}", shard=self._shard.index)
        if what.item is Outcome and what.fields.keys() >= ipc.CLAIM_FIELDS:
            # Its readable fields are true; if the verdict is not among them, only the worker knows it.
            lost: dict[str, Any] = {
                "verdict": Verdict.IN_DOUBT,
                "error": LOST_MESSAGE,
                "error_class": ErrorClass.WORKER,
            }
            self._dispatch.outcomes(self._shard.index, [Outcome(**(lost | {"at": time.time()} | what.fields))])
        else:
            self.audit()

    def failed(self, message: object, error: Exception) -> None:
        """Handling a message raised this."""
        subject = message.item if isinstance(message, Unencodable) else message
        text = f"{type(subject).__name__} could not be handled: {type(error).__name__}: {error}"
        self._handlers.defects.note(text, shard=self._shard.index, error=error)
        self._shard.last_error = text
        self.audit()

    def out_of_sync(self, error: OutOfSyncError) -> None:
        """None of its messages can be decoded any more; what it has in flight is settled from its journal."""
        self._process.out_of_sync(error)
        self._stop_dispatch()

    def disconnected(self) -> None:
        """Everything that it sent has arrived."""
        self._process.disconnected()

    def _stop_dispatch(self) -> None:
        """The worker is about to end through no fault of its jobs: it gets no more."""
        self._shard.worker_ending = True
        self._dispatch.shard_down(self._shard.index)

    def _note_journal(self, error: str | None) -> None:
        """A worker gets jobs only while its journal takes entries."""
        shard = self._shard
        before, shard.journal_error = shard.journal_error, error
        if before == error:
            return
        if error is not None:
            log.error("journal not usable: the worker gets no jobs", action="journal", shard=shard.index, error=error)
            self._dispatch.shard_down(shard.index)
        else:
            log.info("journal usable again", action="journal", shard=shard.index, before=before)
            if shard.state is ShardState.RUNNING and shard.epoch is not None:
                self._dispatch.shard_up(shard.index, shard.epoch)

    # ---- what cannot be sent

    def unencodable(self, what: Unencodable) -> None:
        """A message, or one job or device of it, that the worker does not get."""
        match what.item:
            case JobSpec() as job:
                outcome = Outcome(
                    *job.key,
                    Verdict.PERMANENT,
                    error=f"this job cannot be handed to a worker: {what.why}",
                    error_class=ErrorClass.CONTENT,
                    at=time.time(),
                )
                self._dispatch.outcomes(self._shard.index, [outcome])
            case DeviceSpec() as device:
                log.error(
                    "device cannot be sent to the worker",
                    action="device",
                    shard=self._shard.index,
                    device=device.id,
                    error=what.why,
                )
                self._handlers.unencodable_device(device, what.why)
            case message:
                text = f"{type(message).__name__} cannot be encoded for the worker: {what.why}"
                self._handlers.defects.note(text, shard=self._shard.index)
                self._shard.last_error = text
                if isinstance(message, ipc.Setup):
                    self._process.kill()

    # ---- the audit

    def audit(self) -> None:
        """Ask the worker which claims it has; the others are settled when it answers."""
        now = time.monotonic()
        if now < (again := self._audited_at + AUDIT_EVERY):
            if self._audit_later is None:
                self._audit_later = asyncio.get_running_loop().call_later(again - now, self._audit_again)
            return
        self._audited_at, self._audit_later = now, None
        self._requests += 1
        # Whatever is in flight now was sent before this, and an outcome that is known now arrives before the answer.
        self._audited = self._dispatch.in_flight(self._shard.index)
        self._process.send(ipc.Audit(request=self._requests))

    def _audit_again(self) -> None:
        # The loop may call slightly early: then this is put off once more.
        self._audit_later = None
        self.audit()

    def _end_audit(self, answer: ipc.AuditReply) -> None:
        audited, self._audited = self._audited or [], None
        has, may_have_left = set(answer.claims), set(answer.started)
        still = {claim.key for claim in self._dispatch.in_flight(self._shard.index)}
        outcomes = [
            Outcome(
                *claim.key,
                Verdict.IN_DOUBT if claim.key in may_have_left else Verdict.TRANSIENT,
                error=LOST_MESSAGE,
                error_class=ErrorClass.WORKER,
                at=time.time(),
            )
            for claim in audited
            if claim.key in still - has
        ]
        if outcomes:
            log.warning("claims that no worker has", action="audit", shard=self._shard.index, jobs=len(outcomes))
            self._dispatch.outcomes(self._shard.index, outcomes)
