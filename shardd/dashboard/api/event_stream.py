"""Events as a stream: an answer that does not end, for as long as the client and its token last.

Unlike the streams of the pages (`shardd.dashboard.live`), which show what is new and leave out what a slow browser does not take,
this one goes on from a position in the outbox: a client that connects again gets everything since.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from shardd.dashboard.api.events import EVERY, MOST, EventWaits, read_kinds
from shardd.dashboard.api.guard import Guard
from shardd.dashboard.api.models import Event
from shardd.dashboard.api.operations import ALL, STREAM, Call, Operation
from shardd.dashboard.api.problems import MALFORMED, ROLE, TOO_MANY, ProblemError
from shardd.dashboard.server_sent import ALIVE, as_event, at_position, send_stream
from shardd.errors import DatabaseError
from shardd.plain import plain
from shardd.queue.database import Database
from shardd.queue.sending import POSITION, RoleError, Sending

QUIET: Final = 20.0
"""Seconds without news after which a stream says that it is there."""
LAST: Final = "Last-Event-ID"
"""The header in which a client that connects again says where it was."""


class Follow(msgspec.Struct, forbid_unknown_fields=True):
    """Which events, and from where on."""

    after: Annotated[str, Meta(pattern=POSITION)] | None = None
    kinds: list[str] | None = None


class EventStreams:
    """Events for programs that stay connected."""

    def __init__(self, database: Database, guard: Guard, waiting: EventWaits) -> None:
        self._database = database
        self._guard = guard
        self._waiting = waiting

    def operations(self) -> list[Operation]:
        """See the module."""
        return [
            Operation(
                method="GET",
                path="/events/stream",
                name="follow_events",
                summary="Follow events",
                about="Server-sent events for as long as the connection lasts: `id` is the position, `event` the kind, `data` "
                f"the event as JSON. From now on; or those after `after`, or after the header `{LAST}`, which clients send when "
                "they connect again. None is left out. A token that sends gets what its role sees.",
                may=ALL,
                handle=self.follow,
                query=Follow,
                answer=Event,
                media=STREAM,
                problems=(ROLE, TOO_MANY),
            )
        ]

    async def follow(self, call: Call) -> web.StreamResponse:
        """As they come."""
        asked: Follow = call.query
        after = call.request.headers.get(LAST) or asked.after
        if after is not None and re.fullmatch(POSITION, after) is None:
            fix = "send the id of the last event, or leave it out"
            raise ProblemError(MALFORMED, f"{LAST} is {after[:80]}: {fix}", field=LAST, value=after[:80], fix=fix)
        sending, kinds = Sending(self._database, call.caller.token.role), read_kinds(asked.kinds)
        position = after or await sending.end()
        with self._waiting.one_more(call.caller.lane):
            return await send_stream(call.request, self._parts(call, sending, position, kinds))

    async def _parts(
        self, call: Call, sending: Sending, position: str, kinds: list[str] | None
    ) -> AsyncGenerator[bytes]:
        """What the stream carries, from a position on."""
        yield at_position(position) + b"\n"
        with suppress(DatabaseError, RoleError):  # the client connects again, and is told why
            while not self._waiting.closed and await self._guard.is_still_good(call.request):
                page = await sending.events(position, MOST, kinds)
                position = page.position
                for event in page.events:
                    text = json.dumps(plain(event), ensure_ascii=False, allow_nan=False)
                    yield at_position(event.position) + as_event(event.kind, text)
                if page.unfinished:
                    continue
                if not await self._waiting.newer_than(position, time.monotonic() + QUIET):
                    yield ALIVE
                elif not page.events:
                    await asyncio.sleep(EVERY)  # a transaction that began earlier has not ended, or it is for others
