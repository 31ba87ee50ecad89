"""Events as they happen: a program asks for those after a position, and the answer waits until there is one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shardd.config.values import RefusedError
from shardd.config.values.words import EVENT_KIND
from shardd.dashboard.api.guard import Guard
from shardd.dashboard.api.models import Events
from shardd.dashboard.api.operations import ALL, Call, Operation
from shardd.dashboard.api.problems import BAD_TOKEN, INVALID, MALFORMED, ROLE, TOO_MANY, ProblemError
from shardd.dashboard.fair_database import LANE, OURS
from shardd.dashboard.shares import Shares
from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.sending import AMONG, POSITION, EventPage, Sending, as_numbers
from shardd.tasks import end_tasks

MOST: Final = 1000
LONGEST: Final = 30
"""Seconds that an answer waits."""
WAITING: Final = 64
"""Requests that may wait at a time: they keep their connections, and the pages need some, too."""
WAITING_OF_ONE: Final = 8
"""Those of one token."""
EVERY: Final = 0.5
"""Seconds between looks at the end of the outbox, one for all who wait, and none when nobody does."""


class After(msgspec.Struct, forbid_unknown_fields=True):
    """Which events."""

    after: Annotated[str, Meta(pattern=POSITION)] | None = None
    kinds: list[str] | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 100
    wait: Annotated[int, Meta(ge=0, le=LONGEST)] = 0


class EventWaits:
    """Requests that wait for events: how many there are, and one look at the end of the outbox for all."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting = Shares(
            "wait for events", "ask when one has its answer, or without wait", most=WAITING, most_of_one=WAITING_OF_ONE
        )
        self._last: str | None = None
        self._changed = asyncio.Condition()
        self._watch: asyncio.Task[None] | None = None
        self.closed = False

    def one_more(self, who: str) -> AbstractContextManager[None]:
        """A request of somebody waits. Raises TooManyError when no more may."""
        return self._waiting.one_more(who)

    async def newer_than(self, position: str, deadline: float) -> bool:
        """Wait for an event after a position; whether there is one before the deadline."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())), self._changed:
                while not self.closed and (self._last is None or as_numbers(self._last) <= as_numbers(position)):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return not self.closed

    async def close(self) -> None:
        """Let nobody wait any more."""
        self.closed = True
        async with self._changed:
            self._changed.notify_all()
        if self._watch is not None:
            await end_tasks([self._watch])

    async def _look(self) -> None:
        """Where the outbox ends, while somebody waits."""
        LANE.set(OURS)
        while self._waiting:
            try:
                last = await self._database.value("last_event")
            except DatabaseError:
                last = None  # those who wait find out what is wrong when they ask themselves
            if last is not None and last != self._last:
                async with self._changed:
                    self._last = last
                    self._changed.notify_all()
            await asyncio.sleep(EVERY)
        self._last = None


class EventCalls:
    """Events for programs."""

    def __init__(self, database: Database, guard: Guard, waiting: EventWaits) -> None:
        self._database = database
        self._guard = guard
        self._waiting = waiting

    def operations(self) -> list[Operation]:
        """See the module."""
        return [
            Operation(
                method="GET",
                path="/events",
                name="read_events",
                summary="Read events",
                about="Those after a position, oldest first; without one, from the first that is kept. With `wait`, an answer "
                "without events comes only after so many seconds. `kinds` are patterns such as `job.*`, as for webhooks; the "
                f"parameter may be repeated; they are looked for among {AMONG:,} events at a time: with `unfinished`, go on "
                "from `position` at once, also after an answer without events. A token that sends gets what its role sees.",
                may=ALL,
                handle=self.read,
                query=After,
                answer=Events,
                problems=(INVALID, ROLE, TOO_MANY),
            )
        ]

    async def read(self, call: Call) -> EventPage:
        """The next ones."""
        asked: After = call.query
        kinds = read_kinds(asked.kinds)
        sending = Sending(self._database, call.caller.token.role)
        page = await sending.events(asked.after, asked.limit, kinds)
        if page.events or not asked.wait:
            return page
        deadline = time.monotonic() + asked.wait
        with self._waiting.one_more(call.caller.lane):
            while not page.events and await self._waiting.newer_than(page.position, deadline):
                if not await self._guard.is_still_good(call.request):
                    raise ProblemError(BAD_TOKEN, "the token was removed, or has expired, while this request waited")
                page = await sending.events(page.position, asked.limit, kinds)
                if not (page.events or page.unfinished):
                    await asyncio.sleep(EVERY)  # a transaction that began earlier has not ended, or it is for others
        return page


def read_kinds(given: Sequence[str] | None) -> list[str] | None:
    """Patterns of kinds; None: all. Raises ProblemError."""
    return None if given is None else [_kind(one) for one in given]


def _kind(text: str) -> str:
    try:
        return str(EVENT_KIND.read(text))
    except RefusedError as error:
        raise ProblemError(
            MALFORMED, f"kinds: {text[:80]} {error}", field="kinds", value=text[:80], fix=str(error)
        ) from None
