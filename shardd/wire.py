"""How the messages of `shardd.ipc` become bytes, and bytes messages again: each costs only itself when it cannot.

A message travels as its length (4 bytes, big endian) and its msgpack. So a message that cannot be read has a known end, and
those behind it arrive. What cannot be encoded, or is too large, is divided until only the job, the device or the outcome is
left that is at fault; what cannot be decoded is taken apart in the same way. Nothing here does I/O, and no input of any kind
raises anything but `OutOfStepError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from shardd.errors import SharddError
from shardd.ipc import (
    Devices,
    DeviceSpec,
    JobSpec,
    Outcome,
    Outcomes,
    Send,
    Setup,
    ToSupervisor,
    ToWorker,
)

HEADER: Final = 4
"""Bytes."""
MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes; the longest job that the queue accepts is a fiftieth of this."""

_UNENCODABLE: Final = (OverflowError, TypeError, ValueError, RecursionError)
"""Of msgspec: a number beyond 64 bits; a type that it does not know; half of a surrogate pair; too deep a nesting."""
_UNDECODABLE: Final = (msgspec.MsgspecError, OverflowError, TypeError, ValueError, RecursionError)
"""The others: a text that is no UTF-8; what a message's own checks refuse; too deep a nesting."""

Item = type[DeviceSpec] | type[JobSpec] | type[Outcome]

_LISTS: Final[dict[str, tuple[str, Item]]] = {
    "setup": ("devices", DeviceSpec),
    "devices": ("changed", DeviceSpec),
    "send": ("jobs", JobSpec),
    "outcomes": ("outcomes", Outcome),
}
"""Messages that carry things which have nothing to do with each other: by tag, the field and what stands in it."""
_PATH: Final = re.compile(r" - at `(key in )?\$(?P<path>[^`]*)`$")

_encoder = msgspec.msgpack.Encoder()
_fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_items = msgspec.msgpack.Decoder(list[msgspec.Raw])
_item_decoders = {kind: msgspec.msgpack.Decoder(kind) for _, kind in _LISTS.values()}


class OutOfStepError(SharddError):
    """A length that no message has: nobody can tell where the next one begins, so the channel is of no use any more."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """What could not be encoded: a message, or one job, device or outcome of it."""

    item: Any
    why: str


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be decoded: a message, or one job, device or outcome of it."""

    kind: str
    """The message's tag, such as `send`; `?`: not even that."""
    where: str
    """The field, such as `jobs[].id`; empty: not known."""
    why: str
    item: Item | None = None
    """What it is one of, if only one item of the message could not be read."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Those fields of the item that can be read."""

    def __str__(self) -> str:
        """In words."""
        return f"{self.kind}{'.' if self.where else ''}{self.where}: {self.why}"


# ---- out


def encode(messages: list[Any]) -> tuple[bytearray, list[Unsent]]:
    """These messages, ready to be written, and what of them could not be encoded."""
    data, unsent = bytearray(), list[Unsent]()
    for message in messages:
        _put(message, data, unsent)
    return data, unsent


def _put(message: Any, data: bytearray, unsent: list[Unsent]) -> None:
    begin = len(data)
    data += bytes(HEADER)
    try:
        _encoder.encode_into(message, data, -1)
    except _UNENCODABLE as error:
        why = str(error)
    else:
        size = len(data) - begin - HEADER
        if size <= MAX_MESSAGE:
            data[begin : begin + HEADER] = size.to_bytes(HEADER, "big")
            return
        why = f"its {size:,} bytes are more than the {MAX_MESSAGE:,} that a message may have"
    del data[begin:]
    if parts := _divide(message):
        for part in parts:
            _put(part, data, unsent)
    else:
        unsent.append(Unsent(_only_item(message), why))


def _divide(message: Any) -> list[Any]:
    """The same in several messages; empty when there is nothing to divide."""
    match message:
        case Setup(devices=[_, *_]):
            return [msgspec.structs.replace(message, devices=[]), Devices(changed=message.devices)]
        case Devices(changed=[_, *_], removed=[_, *_]):
            return [Devices(changed=message.changed), Devices(removed=message.removed)]
        case Devices(changed=[_, _, *_] as items):
            return [Devices(changed=half) for half in _halves(items)]
        case Send(jobs=[_, _, *_] as items):
            return [Send(jobs=half) for half in _halves(items)]
        case Outcomes(outcomes=[_, _, *_] as items):
            return [Outcomes(outcomes=half) for half in _halves(items)]
    return []


def _halves(items: list[Any]) -> tuple[list[Any], list[Any]]:
    return items[: len(items) // 2], items[len(items) // 2 :]


def _only_item(message: Any) -> Any:
    match message:
        case Send(jobs=[item]) | Outcomes(outcomes=[item]) | Devices(changed=[item]):
            return item
    return message


# ---- in


def worker_reader() -> Reader:
    """Of what a supervisor says."""
    return Reader(msgspec.msgpack.Decoder(ToWorker))


def supervisor_reader() -> Reader:
    """Of what a worker says."""
    return Reader(msgspec.msgpack.Decoder(ToSupervisor))


class Reader:
    """Makes messages of bytes as they come, in pieces of any size; keeps no more than one message and one piece."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that are complete now, in order, with an `Unread` for what cannot be read. Raises OutOfStepError."""
        self._buffer += data
        begin = 0
        try:
            while (end := self._end_of(begin)) is not None:
                payload = bytes(memoryview(self._buffer)[begin + HEADER : end])
                begin = end
                try:
                    message = self._decoder.decode(payload)
                except _UNDECODABLE as error:
                    yield from self._take_apart(payload, error)
                else:
                    yield message
        finally:
            del self._buffer[:begin]

    def _end_of(self, begin: int) -> int | None:
        if len(self._buffer) < begin + HEADER:
            return None
        size = int.from_bytes(self._buffer[begin : begin + HEADER], "big")
        if not 0 < size <= MAX_MESSAGE:
            self._buffer.clear()
            raise OutOfStepError(f"a message of {size:,} bytes was announced, and {MAX_MESSAGE:,} is the most")
        end = begin + HEADER + size
        return end if len(self._buffer) >= end else None

    def _take_apart(self, payload: bytes, error: Exception) -> Iterator[Any]:
        """Of a message that cannot be read as a whole, what can be, and a note for what cannot."""
        try:
            fields = _fields.decode(payload)
            kind = msgspec.msgpack.decode(fields["type"], type=str)
            name, item = _LISTS[kind]
            raws = _items.decode(fields[name])
        except (*_UNDECODABLE, KeyError):
            yield Unread(_kind_of(payload), *_where(error))
            return
        good: list[msgspec.Raw] = []
        bad: list[Unread] = []
        for raw in raws:
            try:
                _item_decoders[item].decode(raw)
            except _UNDECODABLE as fault:
                where, why = _where(fault, item)
                bad.append(Unread(kind, f"{name}[]{where and '.'}{where}", why, item, _readable_fields(raw, item)))
            else:
                good.append(raw)
        if bad:
            try:
                message = self._decoder.decode(_encoder.encode({**fields, name: good}))
            except _UNDECODABLE as fault:
                yield Unread(kind, *_where(fault))
            else:
                yield message
            yield from bad
        else:
            yield Unread(kind, *_where(error))


def _kind_of(payload: bytes) -> str:
    try:
        return msgspec.msgpack.decode(payload, type=_Tagged).type[:40]
    except _UNDECODABLE:
        return "?"


class _Tagged(msgspec.Struct):
    type: str


def _readable_fields(raw: msgspec.Raw, item: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        values = _items.decode(raw)
    except _UNDECODABLE:
        return {}
    found = {}
    for known, value in zip(msgspec.structs.fields(item), values, strict=False):
        try:
            found[known.name] = msgspec.msgpack.decode(value, type=known.type)
        except _UNDECODABLE:
            continue
    return found


def _where(error: Exception, item: type[msgspec.Struct] | None = None) -> tuple[str, str]:
    """(the field, what is wrong with it): items are arrays, whose fields msgspec tells by their number."""
    text = str(error)
    found = _PATH.search(text)
    if found is None:
        return "", text or type(error).__name__
    path = found["path"]
    if item is not None and (numbered := re.match(r"\[(\d+)\]", path)):
        path = item.__struct_fields__[int(numbered[1])] + path[numbered.end() :]
    return re.sub(r"\[\d+\]", "[]", path).lstrip("."), text[: found.start()]
