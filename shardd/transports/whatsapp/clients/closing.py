"""Which open clients are closed, and when to look again. Pure: facts in, a choice out.

A client is worth its memory while its device is about to send, and while messages that it sent are not delivered: until then a
recipient's phone may be unable to decrypt one, and only the client that sent it can encrypt it again (the library keeps its last
messages in memory; whatsmeow, retry.go). Both are bounded. When room is needed, clients are closed in this order: those without
either reason, then those with undelivered messages, then those whose device sends soon; within each, the least recently used
first, and the one that sends latest. A client that is in use is never closed. For a visit only those are closed that nothing is
wanted from.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

LOOKS: Final = 4
"""Looks per `idle_close`, at most: a client is closed at most a quarter of it too late."""


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
    next_send: float | None = None
    """When its device is due to send again; None: unknown."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What open clients may take."""

    idle_close: float
    """Seconds without use after which a client is closed; one whose device sends within them stays open."""
    linger: float
    """Seconds for which a message that is not delivered keeps its client open."""
    needed: int = 0
    """Clients that have to be closed for others to open."""
    for_visit: bool = False
    """The others open for a visit: only clients that nothing is wanted from are closed for them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What follows."""

    close: tuple[str, ...]
    """Devices whose clients are closed, in this order."""
    look_again: float | None
    """The next look; None: when there is a client again."""


class _Worth(IntEnum):
    """Why a client is kept, the weakest reason first."""

    NOTHING = 0
    UNDELIVERED = 1
    SENDS_SOON = 2


def choose(clients: Sequence[OpenClient], budget: Budget, now: float) -> Choice:
    """Which of the open clients are closed now."""
    free = sorted((one for one in clients if not one.busy), key=lambda one: _rank(one, budget, now))
    due = [one for one in free if _closes_at(one, budget, now) <= now]
    others = [one for one in free if _closes_at(one, budget, now) > now and _may_close(one, budget, now)]
    more = max(0, budget.needed - len(due))
    close = [*due, *others[:more]]
    ends = [_changes_at(one, budget, now) for one in clients if one not in close]
    step = budget.idle_close / LOOKS
    return Choice(tuple(one.device_id for one in close), max(min(ends), now + step) if ends else None)


def _may_close(client: OpenClient, budget: Budget, now: float) -> bool:
    """Whether it may be closed, before it is due, for another to open."""
    return not budget.for_visit or (not client.hearing and _worth(client, budget, now) is _Worth.NOTHING)


def _worth(client: OpenClient, budget: Budget, now: float) -> _Worth:
    if client.next_send is not None and now <= client.next_send <= now + budget.idle_close:
        return _Worth.SENDS_SOON
    if client.undelivered and now < client.undelivered_at + budget.linger:
        return _Worth.UNDELIVERED
    return _Worth.NOTHING


def _rank(client: OpenClient, budget: Budget, now: float) -> tuple[_Worth, float]:
    worth = _worth(client, budget, now)
    if worth is _Worth.SENDS_SOON and client.next_send is not None:
        return worth, -client.next_send
    return worth, client.used_at


def _closes_at(client: OpenClient, budget: Budget, now: float) -> float:
    """When it is closed if nothing happens. A device that is due by then has sent, or is not going to."""
    ends = [(now if client.hearing else client.used_at) + budget.idle_close]
    if client.undelivered:
        ends.append(client.undelivered_at + budget.linger)
    if client.next_send is not None and _worth(client, budget, now) is _Worth.SENDS_SOON:
        ends.append(client.next_send + budget.idle_close / LOOKS)
    return max(ends)


def _changes_at(client: OpenClient, budget: Budget, now: float) -> float:
    """The earliest time at which it may have to be closed: whatever is undelivered may be confirmed at any moment."""
    idle = (now if client.busy or client.hearing else client.used_at) + budget.idle_close
    return max(idle, now)
