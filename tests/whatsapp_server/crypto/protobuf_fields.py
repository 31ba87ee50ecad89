"""Protobuf encoding of Signal's own messages, for which neonize contains no Python classes.

A message is a mapping from field number to an integer or bytes; these messages use no other types.
"""

from __future__ import annotations

Values = dict[int, int | bytes | None]

VARINT, LENGTH_DELIMITED = 0, 2
_MORE = 0x80


class WireFormatError(ValueError):
    """The bytes are not a protobuf message of integers and byte strings."""


def write_fields(fields: Values) -> bytes:
    """Serialise a message; fields that are None are omitted."""
    out = bytearray()
    for number, value in sorted(fields.items()):
        if isinstance(value, int):
            out += _varint(number << 3 | VARINT) + _varint(value)
        elif value is not None:
            out += _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(value)) + value
    return bytes(out)


class Fields:
    """A parsed message; as in protobuf, a missing field reads as 0 or as empty bytes."""

    def __init__(self, data: bytes) -> None:
        self._values: dict[int, int | bytes] = {}
        at = 0
        while at < len(data):
            key, at = _read_varint(data, at)
            value, at = _read_varint(data, at)
            if key & 7 == LENGTH_DELIMITED:
                self._values[key >> 3] = data[at : at + value]
                at += value
                if at > len(data):
                    raise WireFormatError(f"field {key >> 3} ends {at - len(data)} bytes after the message")
            elif key & 7 == VARINT:
                self._values[key >> 3] = value
            else:
                raise WireFormatError(f"wire type {key & 7} is not used in these messages")

    def __contains__(self, number: int) -> bool:
        return number in self._values

    def integer(self, number: int) -> int:
        """The value of an integer field."""
        value = self._values.get(number, 0)
        if not isinstance(value, int):
            raise WireFormatError(f"field {number} is not an integer")
        return value

    def data(self, number: int) -> bytes:
        """The value of a bytes field."""
        value = self._values.get(number, b"")
        if not isinstance(value, bytes):
            raise WireFormatError(f"field {number} is not bytes")
        return value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= _MORE:
        out.append(value % _MORE | _MORE)
        value //= _MORE
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte % _MORE) << shift
        if byte < _MORE:
            return value, at
        shift += 7
    raise WireFormatError("a number is cut off")
