"""What the server saw: the messages, each once however often it arrived, and the events; and ways to wait for them.

WhatsApp knows a message by its sender's account and its id. A client that resends after a drop uses the same id, so the
message gains an arrival; a message sent anew has an id of its own, and is a second message.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

EVENTS_KEPT = 50_000


@dataclass(slots=True)
class Media:
    """The file of a media message, as the recipient gets it from the server's storage."""

    mime_type: str
    size: int
    sha256: str
    file_name: str = ""
    intact: bool = False  # fetched from storage, authentic, and of the announced hash
    width: int = 0
    height: int = 0
    thumbnail: str = ""  # in base64


@dataclass(slots=True)
class Arrival:
    """One time that a message came in: when (Unix seconds), and what the server did about it."""

    time: float
    outcome: str


@dataclass(slots=True)
class Message:
    """One message as WhatsApp knows it. ``accepted``: WhatsApp took it, whatever the sender was told."""

    sender: str
    sender_device: str
    recipient: str
    id: str
    kind: str = "unreadable"
    text: str = ""
    media: Media | None = None
    copies: int = 0
    read_by: list[str] = field(default_factory=list)
    error: str = ""
    bot_tag: bool = False  # the sender marked itself as a bot
    accepted: bool = False
    arrivals: list[Arrival] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the control port."""
        return asdict(self)


@dataclass(slots=True)
class Event:
    """Something that happened to a device; ``number`` grows by one with each."""

    number: int
    time: float
    kind: str
    device: str
    details: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For the control port."""
        return asdict(self)


@dataclass(slots=True, frozen=True)
class MessageFilter:
    """Which messages are meant; a field that is empty matches all. ``sender``: a number, or one of its devices."""

    sender: str = ""
    recipient: str = ""
    text: str = ""
    message_id: str = ""

    def matches(self, message: Message) -> bool:
        """Whether the message is meant."""
        return (
            self.sender in ("", message.sender, message.sender_device)
            and self.recipient in ("", message.recipient)
            and self.text in ("", message.text)
            and self.message_id in ("", message.id)
        )


@dataclass(slots=True, frozen=True)
class EventFilter:
    """Which events are meant; ``after`` is the number of an event already seen."""

    kind: str = ""
    device: str = ""
    after: int = 0

    def matches(self, event: Event) -> bool:
        """Whether the event is meant."""
        return (
            event.number > self.after
            and self.kind in ("", event.kind)
            and (not self.device or self.device in (event.device, event.device.partition(":")[0]))
        )


T = TypeVar("T")


class _Waiters(Generic[T]):
    """Futures that wait for a number of further items; each looks at each new item once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[T], bool], list[T], int, asyncio.Future[None]]] = []

    def offer(self, item: T) -> None:
        for matches, found, count, future in self._waiting:
            if matches(item):
                found.append(item)
                if len(found) >= count and not future.done():
                    future.set_result(None)

    async def wait(self, matches: Callable[[T], bool], known: list[T], count: int, timeout: float) -> list[T]:
        """The items, ``count`` or more; or fewer when the time (seconds) is up."""
        found = known
        if len(found) < count:
            entry = (matches, found, count, asyncio.get_running_loop().create_future())
            self._waiting.append(entry)
            try:
                await asyncio.wait_for(entry[3], timeout)
            except TimeoutError:
                pass
            finally:
                self._waiting.remove(entry)
        return found


class Record:
    """The server's memory of what it saw."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], Message] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._last_event = 0
        self._message_waiters: _Waiters[Message] = _Waiters()
        self._event_waiters: _Waiters[Event] = _Waiters()
        self.counts: Counter[str] = Counter()

    def arrive(self, message: Message, outcome: str, *, accepted: bool) -> Message:
        """Enter an arrival; gives back the message it belongs to."""
        known = self._messages.setdefault((message.sender, message.id), message)
        if known.kind == "unreadable":  # what one arrival hid, a later one may show
            known.kind, known.text, known.media = message.kind, message.text, message.media
            known.copies, known.read_by, known.error = message.copies, message.read_by, message.error
        known.arrivals.append(Arrival(time.time(), outcome))
        self.counts["arrivals"] += 1
        if accepted and not known.accepted:
            known.accepted = True
            self.counts["messages"] += 1
            self._message_waiters.offer(known)
        return known

    def known(self, sender: str, message_id: str) -> Message | None:
        """The message with that id, if it arrived before."""
        return self._messages.get((sender, message_id))

    def messages(self, wanted: MessageFilter, *, accepted_only: bool = True) -> list[Message]:
        """Messages in the order of their first arrival."""
        return [m for m in self._messages.values() if (m.accepted or not accepted_only) and wanted.matches(m)]

    async def wait_messages(self, wanted: MessageFilter, count: int, timeout: float) -> list[Message]:
        """Accepted messages, once there are ``count``; fewer if the time (seconds) runs out first."""
        return await self._message_waiters.wait(wanted.matches, self.messages(wanted), count, timeout)

    def note(self, kind: str, device: str = "", **details: Any) -> None:
        """Enter an event."""
        self._last_event += 1
        event = Event(self._last_event, time.time(), kind, device, details)
        self._events.append(event)
        self.counts[kind] += 1
        self._event_waiters.offer(event)

    def events(self, wanted: EventFilter) -> list[Event]:
        """Events in order; the oldest are forgotten after EVENTS_KEPT."""
        return [event for event in self._events if wanted.matches(event)]

    async def wait_events(self, wanted: EventFilter, count: int, timeout: float) -> list[Event]:
        """Events, once there are ``count``; fewer if the time (seconds) runs out first."""
        return await self._event_waiters.wait(wanted.matches, self.events(wanted), count, timeout)

    def reset(self) -> None:
        """Forget messages, events and counts; event numbers go on."""
        self._messages.clear()
        self._events.clear()
        self.counts.clear()
