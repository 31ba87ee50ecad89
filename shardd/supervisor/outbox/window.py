"""The events of a webhook that are on their way: which may be posted now, and how far everything is done. Pure.

Events about the same job or device form a chain and go one after the other; chains overtake each other. A receiver that fails
in a row is taken to be down: it is left alone for a growing time and then asked with one event, each time the one that was
tried least, because the fault may lie in an event. An event that is refused while others are taken is given up after a few
tries, so that it stops nobody; as long as nothing is taken, the receiver is at fault and only time ends the tries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shardd.backoff import half_jitter
from shardd.queue.webhooks import Event, Position, SetAside

UNFINISHED: Final = 200
"""Events in flight at most; more than a few rounds of the largest `concurrency`."""
HELD: Final = 2000
"""Events that are done behind one that is not, and it with them: so many are posted again after a crash."""
DOWN_AFTER: Final = 2
"""Failures in a row."""
REFUSALS: Final = 4
"""Tries of an event that the receiver says is wrong, while it takes others."""
FAILURES: Final = 12
"""Tries of an event that the receiver fails at, while it takes others."""
LAST_TRIES: Final = 4
"""Before an event is given up for its age."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: upper ends of the first and of every wait, and the age at which an event is given up."""

    first: float
    cap: float
    give_up: float


@dataclass(slots=True)
class Entry:
    """An event in flight; `due` on the clock of the caller."""

    position: Position
    event: Event
    tries: int = 0
    due: float = 0.0
    error: str = ""
    busy: bool = False
    """It is being posted."""
    done: bool = False
    taken_before: int = 0
    """How many events the receiver had taken when it first failed at this one."""


class Window:
    """Entries in the order of the outbox. `now`: seconds of a steady clock; `wall`: POSIX seconds."""

    def __init__(self, cursor: Position, patience: Patience) -> None:
        self._patience = patience
        self._entries: deque[Entry] = deque()
        self._unfinished = 0
        self._end = self._cursor = cursor
        self._taken = 0
        self._failures = 0
        self._rests = 0
        self._rest_until = 0.0
        self._told_until = 0.0

    # ---- what comes in, and how far it is

    @property
    def end(self) -> Position:
        """Behind the last event that was added."""
        return self._end

    @property
    def cursor(self) -> Position:
        """Up to here everything is done."""
        return self._cursor if self._entries else self._end

    @property
    def failures(self) -> int:
        """In a row."""
        return self._failures

    @property
    def resting_until(self) -> float:
        """Nothing may be posted before: the receiver is down, or named a time itself."""
        return max(self._rest_until, self._told_until)

    @property
    def unfinished(self) -> int:
        """Events that are not done."""
        return self._unfinished

    def behind(self, now: datetime) -> float:
        """For how many seconds the oldest event that was read has waited to be taken; 0: none waits."""
        return max(0.0, (now - self._entries[0].event.at).total_seconds()) if self._entries else 0.0

    def room(self) -> int:
        """How many events may be added."""
        return max(0, min(UNFINISHED - self._unfinished, HELD - len(self._entries)))

    def add(self, found: Iterable[tuple[Position, Event]], end: Position) -> None:
        """Take the next events in; `end`: how far the outbox was read."""
        for position, event in found:
            self._entries.append(Entry(position, event))
            self._unfinished += 1
        self._end = max(self._end, end)

    # ---- what to do

    def next_entries(self, now: float) -> list[Entry]:
        """What may be posted now: the first of each chain that is due, one alone when the receiver was down."""
        if now < self.resting_until:
            return []
        heads = self._heads()
        if self._rests:
            alone = not any(entry.busy for entry in heads)
            return [min(heads, key=lambda entry: entry.tries)] if heads and alone else []
        return [entry for entry in heads if entry.due <= now and not entry.busy]

    def next_time(self, now: float) -> float | None:
        """When the next entry may be posted, as far as that is known before an answer comes; None: none waits."""
        heads = self._heads()
        if self._rests:
            return None if not heads or any(entry.busy for entry in heads) else max(now, self.resting_until)
        due = [entry.due for entry in heads if not entry.busy]
        return max(now, self.resting_until, min(due)) if due else None

    def _heads(self) -> list[Entry]:
        heads: dict[str, Entry] = {}
        for entry in self._entries:
            if not entry.done:
                heads.setdefault(entry.event.about, entry)
        return list(heads.values())

    # ---- what came of it

    def taken(self, entry: Entry) -> None:
        """The receiver has it."""
        entry.busy = False
        self._taken += 1
        self._revive()
        self._finish(entry)

    def failed(
        self, entry: Entry, error: str, now: float, wall: float, *, refused: bool, retry_after: float | None
    ) -> list[SetAside]:
        """It was not taken; returns what is given up by that. `refused`: the receiver says that the event is wrong."""
        patience = self._patience
        entry.busy = False
        if not entry.tries:
            entry.taken_before = self._taken
        entry.tries += 1
        entry.error = error
        entry.due = now + max(half_jitter(entry.tries, patience.first, patience.cap), retry_after or 0.0)
        self._failures += 1
        if self._failures >= DOWN_AFTER and now >= self._rest_until:
            self._rests += 1
            self._rest_until = now + half_jitter(self._rests, patience.first, patience.cap)
        if retry_after is not None:
            self._told_until = max(self._told_until, now + retry_after)
        return [self._give_up(one, error) for one in self._lost(entry, wall, refused=refused)]

    def hurry(self) -> None:
        """A person wants a try now."""
        self._rest_until = self._told_until = 0.0
        for entry in self._entries:
            entry.due = 0.0

    def _lost(self, entry: Entry, wall: float, *, refused: bool) -> list[Entry]:
        others_pass = self._taken > entry.taken_before
        if others_pass and entry.tries >= (REFUSALS if refused else FAILURES):
            self._revive()  # the fault was the event's
            return [entry]
        oldest = wall - self._patience.give_up
        if self._rests >= LAST_TRIES:
            left = [one for one in self._entries if not one.done and not one.busy]
            return [one for one in left if one.event.at.timestamp() < oldest]
        return [entry] if entry.tries >= LAST_TRIES and entry.event.at.timestamp() < oldest else []

    def _revive(self) -> None:
        self._failures = self._rests = 0
        self._rest_until = 0.0

    def _give_up(self, entry: Entry, error: str) -> SetAside:
        self._finish(entry)
        return SetAside(entry.event, max(1, entry.tries), entry.error or error)

    def _finish(self, entry: Entry) -> None:
        entry.done = True
        self._unfinished -= 1
        while self._entries and self._entries[0].done:
            self._cursor = self._entries.popleft().position
