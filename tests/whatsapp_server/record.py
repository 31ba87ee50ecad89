"""The record of messages and events, and waiting for either.

WhatsApp identifies a message by its sender's account and its id. A client that resends after a dropped connection uses the
same id, which adds an arrival to the message. A new id is a second message.
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
    """The file of a media message, as a recipient fetches it from the server's storage."""

    mime_type: str
    size: int
    sha256: str
    file_name: str = ""
    intact: bool = False  # fetched from storage, authentic, and with the hash in the message
    width: int = 0
    height: int = 0
    thumbnail: str = ""  # in base64
    seconds: int = 0
    waveform: str = ""  # in base64


@dataclass(slots=True)
class LinkPreview:
    """What a phone shows below a text: the page of the link ``matched`` in it."""

    matched: str
    title: str
    description: str = ""
    thumbnail: str = ""  # in base64


@dataclass(slots=True)
class Arrival:
    """One arrival of a message: its time (Unix seconds), how the server answered, and its number of copies for the recipient."""

    time: float
    outcome: str
    copies: int = 0
    answers_retry: bool = False  # the copy that a phone asked for, because it could not decrypt the first


@dataclass(slots=True)
class Message:
    """One message as WhatsApp stores it.

    ``accepted``: WhatsApp took it, whatever it answered. ``copies_for``: the devices (``number:index``) of its recipient, or of
    the members of its group, that a copy was encrypted for. ``read_by``: the phones that decrypted theirs.
    """

    sender: str
    sender_device: str
    recipient: str
    id: str
    kind: str = "unreadable"
    text: str = ""
    media: Media | None = None
    link: LinkPreview | None = None
    quoted_id: str = ""  # the message that it answers
    edit: str = ""  # what its stanza says about an earlier message: 7, its sender deletes it for everyone
    revokes: str = ""  # the id of the message that it deletes
    copies_for: list[str] = field(default_factory=list)
    read_by: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # numbers whose phones could not decrypt it
    deleted_by: list[str] = field(default_factory=list)  # numbers whose phones do not show it any more
    error: str = ""
    bot_tag: bool = False  # the sender marked itself as a bot
    accepted: bool = False
    arrivals: list[Arrival] = field(default_factory=list)

    @property
    def copies(self) -> int:
        """How many copies it had for others than the sender's own devices."""
        return len(self.copies_for)

    @property
    def readable(self) -> bool:
        """Whether somebody can read it: a phone did, or a linked device got a copy, which this server cannot open."""
        return bool(self.read_by) or (bool(self.copies_for) and not self.error)

    def opened_as(self, other: Message) -> None:
        """The phones decrypted it once more, as ``other``: what was unreadable before may be readable now."""
        if self.kind == "unreadable":
            self.kind, self.text, self.media = other.kind, other.text, other.media
            self.link, self.quoted_id, self.revokes = other.link, other.quoted_id, other.revokes
            self.copies_for, self.read_by, self.error = other.copies_for, other.read_by, other.error
            self.failed = other.failed
        else:
            self.read_by += [number for number in other.read_by if number not in self.read_by]
            self.failed = [number for number in self.failed if number not in self.read_by]
            self.error = self.error if self.failed else ""

    def as_dict(self) -> dict[str, Any]:
        """The value as JSON for the control protocol."""
        return asdict(self)


@dataclass(slots=True)
class Event:
    """Something that happened to a device; ``number`` counts events from 1."""

    number: int
    time: float
    kind: str
    device: str
    details: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The value as JSON for the control protocol."""
        return asdict(self)


@dataclass(slots=True, frozen=True)
class MessageFilter:
    """Selects messages; an empty field matches all. ``sender``: a number, or one of its devices."""

    sender: str = ""
    recipient: str = ""
    text: str = ""
    message_id: str = ""

    def matches(self, message: Message) -> bool:
        """Whether the message is selected."""
        return (
            self.sender in ("", message.sender, message.sender_device)
            and self.recipient in ("", message.recipient)
            and self.text in ("", message.text)
            and self.message_id in ("", message.id)
        )


@dataclass(slots=True, frozen=True)
class EventFilter:
    """Selects events; ``after``: only those with a higher number."""

    kind: str = ""
    device: str = ""
    after: int = 0

    def matches(self, event: Event) -> bool:
        """Whether the event is selected."""
        return (
            event.number > self.after
            and self.kind in ("", event.kind)
            and (not self.device or self.device in (event.device, event.device.partition(":")[0]))
        )


T = TypeVar("T")


class _Waiters(Generic[T]):
    """Waiters for a number of further items; each waiter checks each new item once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[T], bool], list[T], int, asyncio.Future[None]]] = []

    def offer(self, item: T) -> None:
        for matches, found, count, future in self._waiting:
            if matches(item):
                found.append(item)
                if len(found) >= count and not future.done():
                    future.set_result(None)

    async def wait(self, matches: Callable[[T], bool], known: list[T], count: int, timeout: float) -> list[T]:
        """The items once there are ``count``; fewer if ``timeout`` (seconds) runs out first."""
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
    """All messages and events since the last reset."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], Message] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._last_event = 0
        self._message_waiters: _Waiters[Message] = _Waiters()
        self._event_waiters: _Waiters[Event] = _Waiters()
        self.counts: Counter[str] = Counter()

    def arrive(self, message: Message, outcome: str, *, accepted: bool, answers_retry: bool = False) -> Message:
        """Record an arrival; returns the message that it belongs to."""
        known = self._messages.setdefault((message.sender, message.id), message)
        known.opened_as(message)
        known.arrivals.append(Arrival(time.time(), outcome, message.copies, answers_retry))
        self.counts["arrivals"] += 1
        if accepted and not known.accepted:
            known.accepted = True
            self.counts["messages" if known.readable else "unreadable"] += 1
            if known.readable:
                self._message_waiters.offer(known)
        return known

    def known(self, sender: str, message_id: str) -> Message | None:
        """The message with that id, if it arrived before."""
        return self._messages.get((sender, message_id))

    def messages(
        self, wanted: MessageFilter, *, accepted_only: bool = True, readable_only: bool = True
    ) -> list[Message]:
        """Deliveries in the order of their first arrival: accepted messages that somebody can read.

        ``accepted_only=False``: all that arrived; ``readable_only=False``: also those that nobody can read.
        """
        return [
            m
            for m in self._messages.values()
            if wanted.matches(m) and (not accepted_only or (m.accepted and (m.readable or not readable_only)))
        ]

    async def wait_messages(self, wanted: MessageFilter, count: int, timeout: float) -> list[Message]:
        """Deliveries, once there are ``count``; fewer if ``timeout`` (seconds) runs out first."""
        return await self._message_waiters.wait(wanted.matches, self.messages(wanted), count, timeout)

    def note(self, kind: str, device: str = "", **details: Any) -> None:
        """Record an event."""
        self._last_event += 1
        event = Event(self._last_event, time.time(), kind, device, details)
        self._events.append(event)
        self.counts[kind] += 1
        self._event_waiters.offer(event)

    def events(self, wanted: EventFilter) -> list[Event]:
        """Events in order; only the latest EVENTS_KEPT are kept."""
        return [event for event in self._events if wanted.matches(event)]

    async def wait_events(self, wanted: EventFilter, count: int, timeout: float) -> list[Event]:
        """Events, once there are ``count``; fewer if ``timeout`` (seconds) runs out first."""
        return await self._event_waiters.wait(wanted.matches, self.events(wanted), count, timeout)

    def reset(self) -> None:
        """Forget messages, events and counts; event numbers continue."""
        self._messages.clear()
        self._events.clear()
        self.counts.clear()
