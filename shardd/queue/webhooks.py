"""Webhooks in the database: the statements of `sql/webhooks.sql` as typed calls.

A position is (transaction, id): see the outbox. One incarnation of one node delivers for a webhook, under an epoch; after losing
it, `save` changes nothing and returns None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from shardd.queue.database import Database
from shardd.queue.queries import Record, Statements, first
from shardd.queue.values import arrays

FAILURES_KEPT = 1000
"""Of each webhook."""
AMONG = 20_000
"""Events among which those are counted that wait for a webhook: some milliseconds."""
NOT_CONFIGURED = "not configured"

EventPosition = tuple[int, int]
"""(xid, id): an event's place in the outbox."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to post."""

    id: int
    event_id: str
    """Its `webhook-id`, which no other event ever has, whatever the database."""
    at: datetime
    kind: str
    about: str
    """The job or the device: events about the same one are sent in order."""
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to deliver for a webhook, and where to start."""

    epoch: int
    cursor: EventPosition
    delivered: int
    dropped: int
    retries_asked: int
    missed: int
    disabled: str | None = None
    """Why nothing is posted to its receiver; None: it is enabled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What `save` writes. `delivered` and `dropped`: in all. `wait`: seconds until the next try; None: no wait."""

    cursor: EventPosition
    delivered: int
    dropped: int
    failures: int
    error: str | None
    wait: float | None
    disabled: bool


@dataclass(frozen=True, slots=True)
class SetAside:
    """An event that was given up."""

    event: Event
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """The state of a webhook."""

    name: str
    kinds: list[str]
    node: str | None
    """The node that delivers; None: there is none."""
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
    more_behind: bool
    """Whether more events follow than were looked at, so that `behind` is the least."""
    set_aside: int

    @property
    def behind_words(self) -> str:
        """How many events wait."""
        return f"{self.behind:,}{'+' if self.more_behind else ''}"


@dataclass(frozen=True, slots=True)
class FailingWebhook:
    """A webhook whose receiver has not accepted events for several tries, or that is disabled."""

    name: str
    failing_since: datetime | None
    failures: int
    error: str | None
    next_at: datetime | None
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A failure: an event that was given up."""

    event_id: str
    at: datetime
    kind: str
    tries: int
    error: str
    given_up_at: datetime
    again: bool


def state_of(row: WebhookRow | None, *, configured: bool) -> str:
    """In one or two words. `row` None: no daemon has read the config that has it yet."""
    if not configured:
        return NOT_CONFIGURED
    if row is None:
        return "not begun"
    if row.disabled_at is not None:
        return "disabled"
    if row.node is None:
        return "stopped"
    return "failing" if row.failing_since is not None else "delivering"


def webhook_json(name: str, state: str, row: WebhookRow | None) -> dict[str, Any]:
    """For programs."""
    return ({} if row is None else asdict(row)) | {"name": name, "state": state}


class WebhookStore:
    """The statements with which a node delivers. Every call raises DatabaseError."""

    def __init__(self, database: Database, *, incarnation: UUID, ttl: float) -> None:
        """`ttl`: seconds for which a hold is valid."""
        self._database = database
        self._incarnation = incarnation
        self.ttl = ttl

    async def take(self, name: str, kinds: Sequence[str], target: str) -> Hold | None:
        """The right to deliver, or None when another node has it. `target`: a digest of the webhook's URL and kinds."""
        params = {
            "incarnation": self._incarnation,
            "name": name,
            "kinds": list(kinds),
            "target": target,
            "ttl": self.ttl,
        }

        def hold(*, xid: int, id: int, **fields: Any) -> Hold:  # noqa: A002  # a column's name
            return Hold(cursor=(int(xid), id), **fields)

        return first(await self._database.rows(hold, "take_webhook", params))

    async def save(self, name: str, epoch: int, progress: Progress) -> tuple[int, int] | None:
        """Write the progress; returns (retries asked for, events missed), or None when the hold is lost."""
        params = asdict(progress)
        xid, number = params.pop("cursor")
        params |= {"name": name, "epoch": epoch, "ttl": self.ttl, "xid": str(xid), "id": number}
        saved = first(await self._database.rows(Record, "save_webhook", params))
        return None if saved is None else (saved["retries_asked"], saved["missed"])

    async def release(self, name: str, epoch: int) -> None:
        """Release the right to deliver."""
        await self._database.execute("release_webhook", {"name": name, "epoch": epoch})

    async def read(
        self, after: EventPosition, kinds: Sequence[str], most: int
    ) -> tuple[list[tuple[EventPosition, Event]], EventPosition]:
        """The next events, and the position up to which there are no others."""
        params = {"xid": str(after[0]), "id": after[1], "kinds": list(kinds), "most": most}
        rows = await self._database.rows(Record, "events_for_webhook", params)
        found = [((int(row["xid"]), row["id"]), _event(**row)) for row in rows if row["id"] is not None]
        if len(found) == most:
            return found, found[-1][0]
        # Nothing more can appear of earlier transactions.
        return found, max(after, (int(rows[0]["horizon"]), 0))

    async def set_aside(self, name: str, events: Sequence[SetAside]) -> None:
        """Keep events that were given up."""
        event = {
            "ids": "event.id",
            "event_ids": "event.event_id",
            "ats": "event.at",
            "kinds": "event.kind",
            "bodies": "event.body",
        }
        params = arrays(events, **event, tries="tries", errors="error")
        await self._database.execute("set_aside_events", {"name": name, **params})
        await self._database.execute("trim_webhook_failures", {"name": name, "most": FAILURES_KEPT})

    async def to_send_again(self, name: str, most: int) -> list[Event]:
        """Events that an operator asked to send again."""
        return await self._database.rows(
            partial(Event, about=""), "failures_to_send_again", {"name": name, "most": most}
        )

    async def forget_failures(self, name: str, ids: Sequence[int]) -> None:
        """Delete failures: the receiver has accepted these events after all."""
        await self._database.execute("forget_failures", {"name": name, "ids": list(ids)})


def _event(
    *,
    id: int,  # noqa: A002  # a column's name
    event_id: str,
    at: datetime,
    kind: str,
    job_id: int | None,
    device_id: str | None,
    body: str,
    **_: Any,
) -> Event:
    return Event(id, event_id, at, kind, f"device {device_id}" if job_id is None else f"job {job_id}", body)


class WebhookAdmin(Statements):
    """What an operator asks and does about webhooks."""

    async def all(self, among: int = AMONG) -> list[WebhookRow]:
        """Every webhook; waiting events are counted among the next ones of the outbox."""
        return await self._database.rows(WebhookRow, "list_webhooks", {"among": among})

    async def failing(self, failures: int) -> list[FailingWebhook]:
        """Those that are disabled, or have failed so many times in a row, whichever node delivers for them."""
        return await self._database.rows(FailingWebhook, "failing_webhooks", {"failures": failures})

    async def failures(self, name: str, most: int) -> list[FailureRow]:
        """The failures of a webhook, newest first."""
        return await self._database.rows(FailureRow, "list_webhook_failures", {"name": name, "most": most})

    async def ask_retry(self, name: str) -> int | None:
        """Ask for an immediate try; returns how many failures are sent again; None: there is no such webhook."""
        row = first(await self._database.rows(Record, "ask_webhook_retry", {"name": name}))
        return None if row is None else int(row["again"])

    async def forget(self, keep: float) -> list[str]:
        """Delete webhooks that no node has delivered for in `keep` seconds; returns their names."""
        return await self._database.column("forget_webhooks", {"keep": keep})
