"""What changes while somebody watches: the outbox and the node's status become server-sent events for all who watch.

A page opens one stream and names its **topics**. A topic is a part of a page, rendered once for all streams and sent when it has
changed; or a signal without content, after which a page asks for its part itself; or the newest events, which a stream may
filter. A stream that does not take what it gets never holds up others: of a part, only the latest is kept for it.

Nothing runs while nobody watches: what feeds the streams ends a little after the last of them. A stream ends with its sign-in,
and when newer ones take its place: its page says so, and goes on when somebody comes back to it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from shardd.dashboard.fair_database import LANE, OURS
from shardd.dashboard.outbox_reader import Hearers, OutboxReader
from shardd.dashboard.rates import Rates
from shardd.dashboard.sign_ins import SignIn
from shardd.errors import DatabaseError
from shardd.event_kinds import EventKind
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.events import EventRow
from shardd.tasks import TaskSet, end_tasks, run_together, wait_for_event

log = get_logger(__name__)

EVERY: Final = 1.0
"""Seconds between two looks at what is watched."""
LINGER: Final = 15.0
"""Seconds for which the sources go on without a stream: a page that is left for another one closes its stream and opens one."""
ALIVE: Final = 20.0
"""Seconds after which a stream without news says that it is there."""
MOST: Final = 128
"""Streams at a time; the oldest of whoever has the most makes room."""
MOST_OF_ONE: Final = 4
"""Streams of one sign-in. A browser has six connections to a host, and needs some for what is not a stream."""
MOST_OF_NAME: Final = 200
"""Characters of a topic."""
BACKLOG: Final = 200
"""Events that are kept for a stream that is slower than they come."""
NOTICE: Final = "notice"
"""The topic that every stream has: why the database does not answer, or nothing."""
EVENTS: Final = "events"
"""The topic of the newest events."""
OVER: Final = "over"
"""The topic of the last words of a stream whose place was taken."""
TAKEN: Final = "This page does not change any more, because too many others are open. Click into it to let it go on."
_SIGNALS: Final[Mapping[str, str]] = {
    EventKind.MESSAGE_RECEIVED: "inbox",
    EventKind.MESSAGE_MEDIA: "inbox",
    EventKind.OPT_OUT_TAKEN_BACK: "opt-outs",
}
"""Signals by the kind of the event that causes them; others are `job:ID` and `device:ID`."""

Render = Callable[[str], Awaitable[str]]
"""Renders a part; its argument is what its topic is about: `x` of `campaign:x`, or nothing."""
RenderEvent = Callable[[EventRow], str]


@dataclass(eq=False, slots=True)
class Stream:
    """One that watches."""

    sign_in: SignIn
    topics: frozenset[str]
    gone: Callable[[], bool] = lambda: False
    """Whether nobody receives it any more."""
    wants: Callable[[EventRow], bool] = lambda _: True
    """Which events, with the topic `events`."""
    _latest: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _rows: deque[str] = field(default_factory=lambda: deque(maxlen=BACKLOG))
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False
    _last_words: str = ""

    def put(self, topic: str, html: str) -> None:
        """The new content of a topic."""
        self._latest[topic] = html
        self._woken.set()

    def put_events(self, rows: Sequence[tuple[EventRow, str]]) -> None:
        """The next events, with their rows."""
        if wanted := [html for event, html in rows if self.wants(event)]:
            self._rows.extend(wanted)
            self._woken.set()

    def end(self, words: str = "") -> None:
        """Nothing more follows. `words`: why, if the page shall not try again at once."""
        self._ended, self._last_words = True, words
        self._woken.set()

    async def changes(self) -> AsyncGenerator[tuple[str, str] | None]:
        """See `Live.changes`."""
        while not self._ended:
            if not await wait_for_event(self._woken, ALIVE):
                yield None
                continue
            self._woken.clear()
            if self._rows:
                # The newest is the first row of its page.
                rows = "".join(reversed(self._rows))
                self._rows.clear()
                yield EVENTS, rows
            while self._latest and not self._ended:
                yield self._latest.popitem(last=False)
        if self._last_words:
            yield OVER, self._last_words


class Live:
    """All streams, and what feeds them."""

    def __init__(self, database: Database, listener: Database, is_signed_in: Callable[[SignIn], bool]) -> None:
        """`listener` may listen for notifications. `is_signed_in`: asked every second about each stream."""
        self.rates = Rates(database)
        self._is_signed_in = is_signed_in
        self._reader = OutboxReader(database, listener, Hearers(self._began, self._heard, self._database_says))
        self._renders: dict[str, Render] = {}
        self._for_operators: set[str] = set()
        self._render_event: RenderEvent | None = None
        self._begins: list[Callable[[], None]] = []
        self._hears: list[Callable[[Sequence[EventRow]], None]] = []
        self._streams: list[Stream] = []
        self._sent: dict[str, str] = {}
        """By topic: what its streams have, unless something newer waits."""
        self._signals: set[str] = set()
        self._rendering: set[str] = set()
        self._tasks = TaskSet()
        self._task: asyncio.Task[None] | None = None
        self._watched_at = 0.0
        self._closed = False

    def part(self, topic: str, render: Render, *, operate: bool = False) -> None:
        """A part of a page, from what is in memory: it is rendered every second while it is watched.

        Of a topic such as `campaign:ID`, this is `campaign`. `operate`: only for those who may.
        """
        self._renders[topic] = render
        if operate:
            self._for_operators.add(topic)

    def events_as(self, render: RenderEvent) -> None:
        """How an event looks on the page of events."""
        self._render_event = render

    def on_events(self, begin: Callable[[], None], heard: Callable[[Sequence[EventRow]], None]) -> None:
        """Who else wants events: `begin` is called when some may have been missed."""
        self._begins.append(begin)
        self._hears.append(heard)

    def names(self, topics: Sequence[str], sign_in: SignIn) -> frozenset[str]:
        """Those of these topics that there are for somebody."""
        known = {EVENTS, *self._renders, *_SIGNALS.values(), "job", "device"}
        if not sign_in.may_operate:
            known -= self._for_operators
        return frozenset(one for one in topics if one.partition(":")[0] in known and len(one) <= MOST_OF_NAME)

    def watch(self) -> None:
        """Somebody looks at a page: what feeds it runs at least for a moment."""
        self._watched_at = time.monotonic()
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def changes(self, stream: Stream) -> AsyncGenerator[tuple[str, str] | None]:
        """(topic, content): the parts as they are, and then as they change; None when there was nothing for a while."""
        self._open(stream)
        try:
            async for change in stream.changes():
                yield change
        finally:
            self._close(stream)

    def _open(self, stream: Stream) -> None:
        for one in [one for one in self._streams if one.gone()]:
            self._close(one)
        own = [one for one in self._streams if one.sign_in is stream.sign_in]
        if len(own) >= MOST_OF_ONE:
            self._close(own[0], TAKEN)
        elif len(self._streams) >= MOST:
            counts = Counter(_who(one) for one in self._streams)
            self._close(max(self._streams, key=lambda one: counts[_who(one)]), TAKEN)
        self._streams.append(stream)
        for topic in (*sorted(stream.topics), NOTICE):
            if topic in self._sent:
                stream.put(topic, self._sent[topic])
        self.watch()

    def _close(self, stream: Stream, words: str = "") -> None:
        stream.end(words)
        with suppress(ValueError):  # ended already
            self._streams.remove(stream)

    def signal(self, topic: str) -> None:
        """Have the pages of a signal ask for their parts."""
        self._signals.add(topic)

    async def close(self) -> None:
        """End all streams, and what feeds them."""
        self._closed = True
        for stream in list(self._streams):
            self._close(stream)
        if self._task is not None:
            await end_tasks([self._task])
        await self.rates.close()

    async def _run(self) -> None:
        LANE.set(OURS)  # for all who watch
        try:
            await run_together(self._look(), self._reader.run())
        except Exception as error:  # noqa: BLE001  # a defect of ours
            self._failed(error)
        finally:
            await self._tasks.end()
            await self.rates.close()
            # What happens until somebody watches again is missed.
            for begin in self._begins:
                begin()
            self._rendering.clear()
            self._sent.clear()

    def _failed(self, error: Exception) -> None:
        """End all streams: the pages connect again, and that begins anew."""
        log.error("what feeds the live pages failed", action="defect", exc_info=error)
        for stream in list(self._streams):
            self._close(stream)

    async def _look(self) -> None:
        """Until nobody watches."""
        while self._streams or time.monotonic() < self._watched_at + LINGER:
            for stream in [one for one in self._streams if one.gone() or not self._is_signed_in(one.sign_in)]:
                self._close(stream)
            if self._streams:
                self._watched_at = time.monotonic()
            signals, self._signals = self._signals, set()
            for topic in signals:
                self._send(topic, "")
            watched = self._watched()
            for topic in self._sent.keys() - watched - {NOTICE}:
                del self._sent[topic]
            for topic in watched - self._rendering:
                # Each on its own: one that waits for the database delays no other.
                self._rendering.add(topic)
                self._tasks.start(self._refresh(topic), self._failed)
            await asyncio.sleep(EVERY)

    async def _refresh(self, topic: str) -> None:
        try:
            name, _, about = topic.partition(":")
            if (render := self._renders.get(name)) is None:
                return
            html = await render(about)
            if html != self._sent.get(topic):
                self._sent[topic] = html
                self._send(topic, html)
        except DatabaseError as error:
            self._database_says(str(error))  # and what was shown stays
        finally:
            self._rendering.discard(topic)

    def _watched(self) -> frozenset[str]:
        """All topics of all streams."""
        return frozenset().union(*(stream.topics for stream in self._streams))

    def _send(self, topic: str, html: str) -> None:
        for stream in self._streams:
            if topic in stream.topics:
                stream.put(topic, html)

    async def _began(self, position: str) -> None:
        self.rates.begin(position)
        for begin in self._begins:
            begin()

    def _heard(self, events: Sequence[EventRow]) -> None:
        self.rates.heard(events)
        for heard in self._hears:
            heard(events)
        watched = self._watched()
        for event in events:
            about = {f"job:{event.job_id}", f"device:{event.device_id}", _SIGNALS.get(event.kind, "")}
            self._signals |= about & watched
        watching = [stream for stream in self._streams if EVENTS in stream.topics]
        if watching and self._render_event is not None:
            newest = events[-BACKLOG:]
            rows = [(event, self._render_event(event)) for event in newest]
            for stream in watching:
                stream.put_events(rows)

    def _database_says(self, error: str | None) -> None:
        words = "" if error is None else f"The database does not answer: {error}"
        # While it does not, each part that asks it may have another reason; the first one stays.
        if bool(words) != bool(self._sent.get(NOTICE)):
            self._sent[NOTICE] = words
            for stream in self._streams:
                stream.put(NOTICE, words)


def _who(stream: Stream) -> tuple[str, str]:
    return stream.sign_in.how, stream.sign_in.user
