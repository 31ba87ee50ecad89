"""The events of a webhook that are in flight: which may be posted now, and up to where all are done. Pure.

Events about the same job or device form a chain and are posted one after the other; chains overtake each other. A receiver that
fails repeatedly is considered down: it gets a growing backoff, and then one event, each time the one with the fewest tries,
because the fault may lie in an event. An event that is refused while others are accepted is set aside after a few tries, so that
it blocks no other; as long as nothing is accepted, the receiver is at fault, and events are set aside only for their age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shardd.backoff import half_jitter
from shardd.queue.webhooks import Event, EventPosition, SetAside

UNFINISHED: Final = 200
"""Events in flight at most; more than a few rounds of the largest `concurrency`."""
HELD: Final = 2000
"""Entries in all, done ones behind an unfinished one included: at most so many are posted again after a crash."""
DOWN_AFTER: Final = 2
"""Failures in a row."""
REFUSALS: Final = 4
"""Tries of an event that the receiver refuses while it accepts others."""
FAILURES: Final = 12
"""Tries of an event at which the receiver fails while it accepts others."""
LAST_TRIES: Final = 4
"""Tries, at least, before an event is set aside for its age."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds: upper bounds of the first and of every backoff, and the age at which an event is set aside."""

    first: float
    cap: float
    give_up: float


@dataclass(slots=True)
class Entry:
    """An event in flight; `due` on the caller's clock."""

    position: EventPosition
    event: Event
    tries: int = 0
    due: float = 0.0
    error: str = ""
    busy: bool = False
    """It is being posted."""
    done: bool = False
    accepted_before: int = 0
    """How many events the receiver had accepted when it first failed at this one."""


class Window:
    """Entries in the order of the outbox. `now`: seconds of a steady clock; `wall`: POSIX seconds."""

    def __init__(self, cursor: EventPosition, policy: RetryPolicy) -> None:
        self._policy = policy
        self._entries: deque[Entry] = deque()
        self._unfinished = 0
        self.end = cursor
        """Behind the last event that was added."""
        self._cursor = cursor
        self._accepted = 0
        self.failures = 0
        """In a row."""
        self._backoffs = 0
        self._backoff_until = 0.0
        self._retry_after = 0.0

    # ---- what comes in, and the progress

    @property
    def cursor(self) -> EventPosition:
        """Up to here all events are done."""
        return self._cursor if self._entries else self.end

    @property
    def retry_after(self) -> float:
        """Nothing may be posted before: the receiver is down, or sent Retry-After."""
        return max(self._backoff_until, self._retry_after)

    def behind(self, now: datetime) -> float:
        """Seconds for which the oldest event that was read has waited; 0: none waits."""
        return max(0.0, (now - self._entries[0].event.at).total_seconds()) if self._entries else 0.0

    def room(self) -> int:
        """How many events may be added."""
        return max(0, min(UNFINISHED - self._unfinished, HELD - len(self._entries)))

    def add(self, found: Iterable[tuple[EventPosition, Event]], end: EventPosition) -> None:
        """Add the next events; `end`: how far the outbox was read."""
        for position, event in found:
            self._entries.append(Entry(position, event))
            self._unfinished += 1
        self.end = max(self.end, end)

    # ---- what to do

    def next_entries(self, now: float) -> list[Entry]:
        """What may be posted now: the first of each chain that is due, one alone when the receiver was down."""
        if now < self.retry_after:
            return []
        heads = self._heads()
        if self._backoffs:
            alone = not any(entry.busy for entry in heads)
            return [min(heads, key=lambda entry: entry.tries)] if heads and alone else []
        return [entry for entry in heads if entry.due <= now and not entry.busy]

    def next_time(self, now: float) -> float | None:
        """When the next entry may be posted, as far as known before an answer comes; None: none waits."""
        heads = self._heads()
        if self._backoffs:
            return None if not heads or any(entry.busy for entry in heads) else max(now, self.retry_after)
        due = [entry.due for entry in heads if not entry.busy]
        return max(now, self.retry_after, min(due)) if due else None

    def _heads(self) -> list[Entry]:
        heads: dict[str, Entry] = {}
        for entry in self._entries:
            if not entry.done:
                heads.setdefault(entry.event.about, entry)
        return list(heads.values())

    # ---- answers

    def accepted(self, entry: Entry) -> None:
        """The receiver accepted it."""
        entry.busy = False
        self._accepted += 1
        self._revive()
        self._finish(entry)

    def failed(
        self, entry: Entry, error: str, now: float, wall: float, *, refused: bool, retry_after: float | None
    ) -> list[SetAside]:
        """It was not accepted; returns what is set aside. `refused`: the receiver blames the event."""
        policy = self._policy
        entry.busy = False
        if not entry.tries:
            entry.accepted_before = self._accepted
        entry.tries += 1
        entry.error = error
        entry.due = now + max(half_jitter(entry.tries, policy.first, policy.cap), retry_after or 0.0)
        self.failures += 1
        if self.failures >= DOWN_AFTER and now >= self._backoff_until:
            self._backoffs += 1
            self._backoff_until = now + half_jitter(self._backoffs, policy.first, policy.cap)
        if retry_after is not None:
            self._retry_after = max(self._retry_after, now + retry_after)
        return [self._give_up(one, error) for one in self._lost(entry, wall, refused=refused)]

    def retry_now(self) -> None:
        """An operator asked for it."""
        self._backoff_until = self._retry_after = 0.0
        for entry in self._entries:
            entry.due = 0.0

    def _lost(self, entry: Entry, wall: float, *, refused: bool) -> list[Entry]:
        others_pass = self._accepted > entry.accepted_before
        if others_pass and entry.tries >= (REFUSALS if refused else FAILURES):
            self._revive()  # the event was at fault
            return [entry]
        oldest = wall - self._policy.give_up
        if self._backoffs >= LAST_TRIES:
            left = [one for one in self._entries if not one.done and not one.busy]
            return [one for one in left if one.event.at.timestamp() < oldest]
        return [entry] if entry.tries >= LAST_TRIES and entry.event.at.timestamp() < oldest else []

    def _revive(self) -> None:
        self.failures = self._backoffs = 0
        self._backoff_until = 0.0

    def _give_up(self, entry: Entry, error: str) -> SetAside:
        self._finish(entry)
        return SetAside(entry.event, max(1, entry.tries), entry.error or error)

    def _finish(self, entry: Entry) -> None:
        entry.done = True
        self._unfinished -= 1
        while self._entries and self._entries[0].done:
            self._cursor = self._entries.popleft().position
