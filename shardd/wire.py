"""Encoding of the messages of `shardd.ipc`: one that cannot be encoded or decoded costs only itself.

A message travels as its length (4 bytes, big endian) and its msgpack, so one that cannot be decoded has a known end. Of a message
that carries several devices or outcomes, only those at fault are lost. Nothing here does I/O, and no input raises anything but
`OutOfSyncError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from shardd.errors import SharddError
from shardd.ipc import Devices, DeviceSpec, JobSpec, Outcome, Outcomes, SendJob, Setup, ToSupervisor, ToWorker

HEADER: Final = 4
"""Bytes."""
MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes; the longest job that the queue accepts is a fiftieth of this."""

_ENCODE_ERRORS: Final = (OverflowError, TypeError, ValueError, RecursionError)
"""A number beyond 64 bits; a type that msgspec does not know; half of a surrogate pair; too deep a nesting."""
_DECODE_ERRORS: Final = (msgspec.MsgspecError, *_ENCODE_ERRORS)
"""Besides those of msgspec: text that is not UTF-8; what a message's own checks refuse; too deep a nesting."""

Item = type[DeviceSpec] | type[JobSpec] | type[Outcome]

_ITEMS: Final[dict[str, tuple[str, Item]]] = {
    "setup": ("devices", DeviceSpec),
    "devices": ("changed", DeviceSpec),
    "send_job": ("job", JobSpec),
    "outcomes": ("outcomes", Outcome),
}
"""Messages that carry independent items: by tag, the field and the type of its items."""
_PATH: Final = re.compile(r" - at `(key in )?\$(?P<path>[^`]*)`$")

_encoder = msgspec.msgpack.Encoder()
_fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_list = msgspec.msgpack.Decoder(list[msgspec.Raw])
_item_decoders = {kind: msgspec.msgpack.Decoder(kind) for _, kind in _ITEMS.values()}


class OutOfSyncError(SharddError):
    """A length that no message has: where the next one begins is unknown, so nothing more can be read from the channel."""


@dataclass(frozen=True, slots=True)
class Unencodable:
    """A message, or one job, device or outcome of it, that could not be encoded."""

    item: Any
    why: str


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A message, or one job, device or outcome of it, that could not be decoded."""

    kind: str
    """The message's tag, such as `send_job`; `?`: unknown."""
    where: str
    """The field, such as `job.id`; empty: unknown."""
    why: str
    item: Item | None = None
    """The type of the item, if a single item is at fault."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Those fields of the item that could be decoded."""

    def __str__(self) -> str:
        """In words."""
        return f"{self.kind}{'.' if self.where else ''}{self.where}: {self.why}"


# ---- out


def encode(messages: list[Any]) -> tuple[bytearray, list[Unencodable]]:
    """These messages, ready to be written, and what of them could not be encoded."""
    data, failed = bytearray(), list[Unencodable]()
    for message in messages:
        _put(message, data, failed)
    return data, failed


def _put(message: Any, data: bytearray, failed: list[Unencodable]) -> None:
    begin = len(data)
    data += bytes(HEADER)
    try:
        _encoder.encode_into(message, data, -1)
    except _ENCODE_ERRORS as error:
        why = str(error)
    else:
        size = len(data) - begin - HEADER
        if size <= MAX_MESSAGE:
            data[begin : begin + HEADER] = size.to_bytes(HEADER, "big")
            return
        why = f"its {size:,} bytes are more than the {MAX_MESSAGE:,} that a message may have"
    del data[begin:]
    parts = _split(message)
    if len(parts) == 1:
        failed.append(Unencodable(parts[0], why))
        return
    for part in parts:
        _put(part, data, failed)


def _split(message: Any) -> list[Any]:
    """The same content in a message for each item; of a message that cannot be split, the item that it carries."""
    match message:
        case SendJob(job=item) | Outcomes(outcomes=[item]) | Devices(changed=[item], removed=[]):
            return [item]
        case Outcomes(outcomes=[_, *_] as outcomes):
            return [Outcomes([outcome]) for outcome in outcomes]
        case Devices(changed=[_, *_] as devices):
            return [*(Devices(changed=[device]) for device in devices), Devices(removed=message.removed)]
        case Setup(devices=[_, *_] as devices):
            return [msgspec.structs.replace(message, devices=[]), *(Devices(changed=[device]) for device in devices)]
        case _:
            return [message]


# ---- in


def worker_reader() -> Reader:
    """For what a supervisor sends."""
    return Reader(msgspec.msgpack.Decoder(ToWorker))


def supervisor_reader() -> Reader:
    """For what a worker sends."""
    return Reader(msgspec.msgpack.Decoder(ToSupervisor))


class Reader:
    """Decodes messages from bytes that arrive in pieces of any size; keeps at most one message and one piece."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that are complete now, in order, with `Undecodable` in place of bad ones. Raises OutOfSyncError."""
        self._buffer += data
        begin = 0
        try:
            while (end := self._end_of(begin)) is not None:
                payload = bytes(memoryview(self._buffer)[begin + HEADER : end])
                begin = end
                try:
                    message = self._decoder.decode(payload)
                except _DECODE_ERRORS as error:
                    yield from self._salvage(payload, error)
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
            raise OutOfSyncError(f"a message of {size:,} bytes was announced, and {MAX_MESSAGE:,} is the most")
        end = begin + HEADER + size
        return end if len(self._buffer) >= end else None

    def _salvage(self, payload: bytes, error: Exception) -> Iterator[Any]:
        """What can be decoded of a message that cannot be as a whole, and an `Undecodable` for each part that cannot."""
        kind = "?"
        try:
            fields = _fields.decode(payload)
            kind = msgspec.msgpack.decode(fields["type"], type=str)[:40]
            name, item = _ITEMS[kind]
            raws = [fields[name]] if item is JobSpec else _list.decode(fields[name])
        except (*_DECODE_ERRORS, KeyError):
            yield Undecodable(kind, *_where(error))
            return
        good: list[msgspec.Raw] = []
        bad: list[Undecodable] = []
        for raw in raws:
            try:
                _item_decoders[item].decode(raw)
            except _DECODE_ERRORS as fault:
                where, why = _where(fault, item)
                path = f"{name}{'' if item is JobSpec else '[]'}{where and '.'}{where}"
                bad.append(Undecodable(kind, path, why, item, _readable_fields(raw, item)))
            else:
                good.append(raw)
        if not bad:
            yield Undecodable(kind, *_where(error))
            return
        if item is not JobSpec:
            try:
                yield self._decoder.decode(_encoder.encode({**fields, name: good}))
            except _DECODE_ERRORS as fault:
                yield Undecodable(kind, *_where(fault))
        yield from bad


def _readable_fields(raw: msgspec.Raw, item: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        values = _list.decode(raw)
    except _DECODE_ERRORS:
        return {}
    found = {}
    for known, value in zip(msgspec.structs.fields(item), values, strict=False):
        with suppress(*_DECODE_ERRORS):
            found[known.name] = msgspec.msgpack.decode(value, type=known.type)
    return found


def _where(error: Exception, item: type[msgspec.Struct] | None = None) -> tuple[str, str]:
    """(the field, what is wrong with it); items are arrays, whose fields msgspec names by their index."""
    text = str(error)
    found = _PATH.search(text)
    if found is None:
        return "", text or type(error).__name__
    path = found["path"]
    if item is not None and (numbered := re.match(r"\[(\d+)\]", path)):
        path = item.__struct_fields__[int(numbered[1])] + path[numbered.end() :]
    return re.sub(r"\[\d+\]", "[]", path).lstrip("."), text[: found.start()]
