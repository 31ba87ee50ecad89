"""A job's story, from its insert to what its recipient answered: from its row, its events, and the messages that answer it.

The row knows the last of everything: the last claim, the last error, the last outcome. What came before, such as a failure that
an operator retried, only events know, as long as they are kept. They are in the order of their transactions, and no index finds
those of a job. So the place at which the job was inserted is found by halves, and they are searched from there, in windows, for a
bounded time. A window is so many events, not so many transactions: one may have written a single event, or thousands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shardd.event_kinds import EventKind
from shardd.queue.inbox import InboxMessage
from shardd.queue.queries import Record, Statements
from shardd.queue.records import WholeJob
from shardd.queue.windows import Window
from shardd.states import FINISHED, JobState

BUDGET: Final = 0.04
"""Seconds of a search; the window that is being read when they end is finished."""
FIRST_WINDOW: Final = 10_000
"""Events: some milliseconds."""
NEAR: Final = 100
"""Transactions within which the place of the insert is found."""
END: Final = (2**63 - 1, 0)
"""A position behind every event."""
SLACK: Final = timedelta(minutes=10)
"""For transactions that took their number long before they wrote."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job."""

    at: datetime
    kind: str
    state: str
    message_id: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class JobEvents:
    """Oldest first."""

    events: list[JobEvent]
    whole: bool
    """Whether all that are kept were searched."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened."""

    at: datetime
    what: str
    more: str = ""
    state: str = ""
    """The state that it led to; empty: it changed none."""


class JobStories(Statements):
    """The events of jobs."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    async def events_of(self, job: WholeJob) -> JobEvents:
        """The events of a job. Raises DatabaseError."""
        ends = self.clock() + BUDGET
        (bounds,) = await self._database.rows(Record, "bounds_of_events")
        if bounds["first"] is None:
            return JobEvents([], whole=True)
        since = job.created_at - SLACK
        position = (await self._first_since(since, bounds["first"], bounds["last"]), 0)
        found: list[JobEvent] = []
        window = Window(FIRST_WINDOW)
        while True:
            began = self.clock()
            end = await self._after(position, window.size)
            (low_xid, low_id), (high_xid, high_id) = position, end
            params = {"low_xid": low_xid, "low_id": low_id, "high_xid": high_xid, "high_id": high_id}
            found += await self._database.rows(JobEvent, "events_of_job", {"id": job.id, **params})
            now = self.clock()
            if end == END or now >= ends:
                return JobEvents(found, whole=end == END)
            position = end
            window.adapt(now - began, ends - now)

    async def _after(self, position: tuple[int, int], events: int) -> tuple[int, int]:
        """The position so many events after another one, or `END`."""
        xid, number = position
        rows = await self._database.rows(Record, "position_after", {"xid": xid, "id": number, "events": events})
        return (rows[0]["xid"], rows[0]["id"]) if rows else END

    async def _first_since(self, since: datetime, low: int, high: int) -> int:
        """The first transaction whose event is not older, give or take a few."""
        while high - low > NEAR:
            middle = (low + high) // 2
            at = await self._database.value("moment_of_event", {"low": middle})
            if at is not None and at < since:
                low = middle
            else:
                high = middle
        return low


_WORDS: Final = {
    EventKind.JOB_RETRIED: "put back into the queue",
    EventKind.JOB_DELIVERED: "delivered to the recipient's phone",
    EventKind.JOB_READ: "read by the recipient",
    EventKind.JOB_UNREADABLE: "a device of the recipient could not decrypt it",
}
_ENDS: Final = {
    JobState.SENT: "sent",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.IN_DOUBT: "in doubt: handed over, and nobody can know whether it was sent",
    JobState.EXPIRED: "expired: not sent before expires_at",
    JobState.OPTED_OUT: "not sent: the recipient opted out",
}


def story_of(job: WholeJob, events: Sequence[JobEvent], answers: Sequence[InboxMessage]) -> list[Moment]:
    """Everything that is known to have happened, oldest first."""
    by = f"by the producer {job.producer}" if job.producer else ""
    again = f"it repeats job {job.resend_of}" if job.resend_of is not None else ""
    story = [Moment(job.created_at, "inserted", "; ".join(filter(None, (by, again))))]
    if job.claimed_at is not None:
        story.append(Moment(job.claimed_at, "claimed", _claim_words(job)))
    if job.run_at > job.created_at:
        story.append(Moment(job.run_at, "its time, run_at"))
    story += _ends_of(job, events)
    story += [Moment(one.at, _WORDS[EventKind.JOB_RETRIED]) for one in events if one.kind == EventKind.JOB_RETRIED]
    story += _receipts_of(job, events)
    if job.revoked_at is not None:
        story.append(
            Moment(job.revoked_at, "deletion sent", f"by job {job.revoked_by}; its recipient's app may ignore it")
        )
    story += [Moment(one.received_at, "answered", f"{one.name or one.sender}: {one.text}") for one in answers]
    # Of two at the same moment, the one that was added first.
    return sorted(story, key=lambda moment: moment.at)


def _claim_words(job: WholeJob) -> str:
    where = f"by shard {job.shard} on {job.node}" if job.node is not None else ""
    return ", ".join(filter(None, (where, f"attempt {job.claims}" if job.claims > 1 else "")))


def _ends_of(job: WholeJob, events: Sequence[JobEvent]) -> list[Moment]:
    ends = [
        Moment(one.at, _ENDS[JobState(one.state)], _end_words(one.message_id, one.error), one.state)
        for one in events
        if one.kind == f"job.{one.state}" and one.state in FINISHED
    ]
    # The present end, when its event is not kept any more, or not found.
    if job.settled_at is not None and not any(one.state == job.state for one in ends):
        words = _end_words(job.message_id, job.error)
        ends.append(Moment(job.settled_at, _ENDS[JobState(job.state)], words, job.state))
    return ends


def _end_words(message_id: str | None, error: str | None) -> str:
    return "; ".join(filter(None, (f"message id {message_id}" if message_id else "", error)))


def _receipts_of(job: WholeJob, events: Sequence[JobEvent]) -> list[Moment]:
    """By the row, whose moments are the platform's; by events, of a message that was sent before a retry."""
    known = (
        (EventKind.JOB_DELIVERED, job.delivered_at, ""),
        (EventKind.JOB_READ, job.read_at, ""),
        (EventKind.JOB_UNREADABLE, job.unreadable_at, job.unreadable_why or ""),
    )
    receipts = []
    for kind, at, more in known:
        if at is not None:
            receipts.append(Moment(at, _WORDS[kind], more))
        else:
            receipts += [Moment(one.at, _WORDS[kind]) for one in events if one.kind == kind]
    return receipts
