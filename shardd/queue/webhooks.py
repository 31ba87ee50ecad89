"""Webhooks in the database: the statements of `sql/webhooks.sql` as typed calls.

A position is (transaction, id): see the outbox. One incarnation of one node delivers for a webhook, under an epoch; who lost it
learns that from `save`, which then changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from shardd.queue.database import Database

FAILURES_KEPT = 1000
"""Of each webhook."""

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Event:
    """What is posted."""

    id: int
    at: datetime
    kind: str
    about: str
    """Events about the same job or device are sent one after the other."""
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to deliver for a webhook, and where to begin."""

    epoch: int
    cursor: Position
    retries_asked: int
    missed: int
    disabled: str | None = None
    """Why its receiver is told nothing; None: it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What `save` writes. `delivered` and `dropped`: since the last time. `wait`: seconds until the next try, None: no wait."""

    cursor: Position
    delivered: int
    dropped: int
    failures: int
    error: str | None
    wait: float | None
    disabled: bool


@dataclass(frozen=True, slots=True)
class SetAside:
    """An event that is given up."""

    event: Event
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """How a webhook is."""

    name: str
    kinds: list[str]
    node: str | None
    """Who delivers; None: nobody."""
    delivered: int
    dropped: int
    missed: int
    delivered_at: datetime | None
    failing_since: datetime | None
    failures: int
    next_at: datetime | None
    error: str | None
    disabled_at: datetime | None
    behind: int
    behind_since: datetime | None
    set_aside: int


@dataclass(frozen=True, slots=True)
class FailureRow:
    """An event that was set aside."""

    event_id: int
    at: datetime
    kind: str
    tries: int
    error: str
    given_up_at: datetime
    again: bool


class WebhookStore:
    """The statements with which a node delivers. Every call raises DatabaseError."""

    def __init__(self, database: Database, *, node: str, incarnation: UUID, ttl: float) -> None:
        """`ttl`: seconds for which a hold is good."""
        self._database = database
        self._who = {"node": node, "incarnation": incarnation}
        self.ttl = ttl

    async def take(self, name: str, kinds: Sequence[str], target: str) -> Hold | None:
        """The right to deliver, or None when another node has it. `target`: a digest of what the webhook is."""
        params = {**self._who, "name": name, "kinds": list(kinds), "target": target, "ttl": self.ttl}
        rows = await self._database.fetch_all("take_webhook", params)
        if not rows:
            return None
        epoch, xid, number, asked, missed, disabled = rows[0]
        return Hold(epoch, (int(xid), number), asked, missed, disabled)

    async def save(self, name: str, epoch: int, progress: Progress) -> tuple[int, int] | None:
        """Write how far it is; returns (retries asked for, events missed), or None when the hold is lost."""
        params = {
            "name": name,
            "epoch": epoch,
            "ttl": self.ttl,
            "xid": str(progress.cursor[0]),
            "id": progress.cursor[1],
            "delivered": progress.delivered,
            "dropped": progress.dropped,
            "failures": progress.failures,
            "error": progress.error,
            "wait": progress.wait,
            "disabled": progress.disabled,
        }
        rows = await self._database.fetch_all("save_webhook", params)
        return (rows[0][0], rows[0][1]) if rows else None

    async def release(self, name: str, epoch: int) -> None:
        """Give the right back."""
        await self._database.execute("release_webhook", {"name": name, "epoch": epoch})

    async def read(
        self, after: Position, kinds: Sequence[str], most: int
    ) -> tuple[list[tuple[Position, Event]], Position]:
        """The next events, and how far the look has come: there is none before that."""
        params = {"xid": str(after[0]), "id": after[1], "kinds": list(kinds), "most": most}
        rows = await self._database.fetch_all("events_for_webhook", params)
        found = [
            ((int(xid), number), Event(number, at, kind, f"device {device}" if job is None else f"job {job}", body))
            for _, xid, number, at, kind, job, device, body in rows
            if number is not None
        ]
        if len(found) == most:
            return found, found[-1][0]
        # Of these transactions nothing can appear any more.
        return found, max(after, (int(rows[0][0]), 0))

    async def set_aside(self, name: str, events: Sequence[SetAside]) -> None:
        """Keep events that are given up."""
        params = {
            "name": name,
            "ids": [one.event.id for one in events],
            "ats": [one.event.at for one in events],
            "kinds": [one.event.kind for one in events],
            "bodies": [one.event.body for one in events],
            "tries": [one.tries for one in events],
            "errors": [one.error for one in events],
        }
        await self._database.execute("set_aside_events", params)
        await self._database.execute("trim_webhook_failures", {"name": name, "most": FAILURES_KEPT})

    async def to_send_again(self, name: str, most: int) -> list[Event]:
        """Events that an operator wants sent once more."""
        rows = await self._database.fetch_all("failures_to_send_again", {"name": name, "most": most})
        return [Event(number, at, kind, "", body) for number, at, kind, body in rows]

    async def forget_failures(self, name: str, ids: Sequence[int]) -> None:
        """The receiver has these after all."""
        await self._database.execute("forget_failures", {"name": name, "ids": list(ids)})


class WebhookAdmin:
    """What an operator asks. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, count_most: int) -> list[WebhookRow]:
        """Every webhook; what waits is counted up to `count_most`."""
        return [WebhookRow(*row) for row in await self._database.fetch_all("list_webhooks", {"most": count_most})]

    async def failures(self, name: str, most: int) -> list[FailureRow]:
        """What was set aside, newest first."""
        rows = await self._database.fetch_all("list_webhook_failures", {"name": name, "most": most})
        return [FailureRow(*row) for row in rows]

    async def ask_retry(self, name: str) -> int | None:
        """Have it tried at once; returns how many events are sent once more, None: there is no such webhook."""
        rows = await self._database.fetch_all("ask_webhook_retry", {"name": name})
        return int(rows[0][0]) if rows else None

    async def forget(self, keep: float) -> list[str]:
        """Drop webhooks that nobody delivers for since `keep` seconds; returns their names."""
        return [row[0] for row in await self._database.fetch_all("forget_webhooks", {"keep": keep})]
