"""Which open clients are closed, and when to look again. Pure: facts in, a choice out.

A client is worth its memory while its device sends, or will send again before long, and while messages that it sent are not
delivered: until then a recipient's phone may be unable to decrypt one, and only the client that sent it can encrypt it again (the
library keeps its last messages in memory; whatsmeow, retry.go). All are bounded. When room is needed, those without undelivered
messages are closed first; within each kind those whose device is not expected to send, the least recently used first, then the
others, the last to send first: that takes the fewest logins. A client that is in use is never closed. For a visit only those are
closed that nothing is wanted from, unless the visit would become late: then also the others.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

LOOKS: Final = 4
"""Looks per `idle_close`, at most: a client is closed at most a quarter of it too late."""
SOON: Final = 300.0
"""Seconds: a client is kept open for a device that will send again within this time."""


@dataclass(frozen=True, slots=True)
class OpenClient:
    """The facts about one client."""

    device_id: str
    used_at: float
    """When it was last used."""
    busy: bool = False
    hearing: bool = False
    """It still hears what waited for it: it is not idle, but may be closed to make room."""
    undelivered: int = 0
    """Messages that it sent and that no device of their recipient has confirmed."""
    undelivered_at: float = 0.0
    """When the last of these was sent."""
    expected_at: float | None = None
    """When its device will have sent again, as far as is known."""


class Purpose(Enum):
    """What room is made for."""

    SEND = "send"
    VISIT = "visit"
    LATE_VISIT = "late visit"
    """It could not be repeated in time."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What open clients may take."""

    idle_close: float
    """Seconds without use after which a client is closed."""
    linger: float
    """Seconds for which a message that is not delivered keeps its client open."""
    needed: int = 0
    """Clients that have to be closed for others to open."""
    purpose: Purpose = Purpose.SEND


@dataclass(frozen=True, slots=True)
class Choice:
    """What follows."""

    close: tuple[str, ...]
    """Devices whose clients are closed, in this order."""
    look_again: float | None
    """The next look; None: when there is a client again."""


def choose(clients: Sequence[OpenClient], budget: Budget, now: float) -> Choice:
    """Which of the open clients are closed now."""
    free = sorted(
        (one for one in clients if not one.busy), key=lambda one: (_is_needed(one, budget, now), *_rank(one, now))
    )
    due = [one for one in free if _closes_at(one, budget, now) <= now]
    others = [one for one in free if _closes_at(one, budget, now) > now and _may_close(one, budget, now)]
    more = max(0, budget.needed - len(due))
    close = [*due, *others[:more]]
    ends = [_changes_at(one, budget, now) for one in clients if one not in close]
    step = budget.idle_close / LOOKS
    return Choice(tuple(one.device_id for one in close), max(min(ends), now + step) if ends else None)


def _may_close(client: OpenClient, budget: Budget, now: float) -> bool:
    """Whether it may be closed, before it is due, for another to open."""
    match budget.purpose:
        case Purpose.SEND:
            return True
        case Purpose.VISIT:
            return not client.hearing and not _is_needed(client, budget, now) and not is_expected(client, now)
        case Purpose.LATE_VISIT:
            return not client.hearing


def _is_needed(client: OpenClient, budget: Budget, now: float) -> bool:
    """Whether a recipient's phone may need it."""
    return client.undelivered > 0 and now < client.undelivered_at + budget.linger


def is_expected(client: OpenClient, now: float) -> bool:
    """Whether its device will send again soon."""
    return client.expected_at is not None and now < client.expected_at <= now + SOON


def _rank(client: OpenClient, now: float) -> tuple[bool, float]:
    """The order in which they make room."""
    if client.expected_at is not None and is_expected(client, now):
        return True, -client.expected_at
    return False, client.used_at


def _closes_at(client: OpenClient, budget: Budget, now: float) -> float:
    """When it is closed if nothing happens."""
    idle = _idle_at(client, now if client.hearing else client.used_at, budget, now)
    return max(idle, client.undelivered_at + budget.linger) if client.undelivered else idle


def _changes_at(client: OpenClient, budget: Budget, now: float) -> float:
    """The earliest time at which it may have to be closed: whatever is undelivered may be confirmed at any moment."""
    used_at = now if client.busy or client.hearing else client.used_at
    return max(_idle_at(client, used_at, budget, now), now)


def _idle_at(client: OpenClient, used_at: float, budget: Budget, now: float) -> float:
    """When it has been of no use for long enough."""
    idle = used_at + budget.idle_close
    return max(idle, client.expected_at) if client.expected_at is not None and is_expected(client, now) else idle
