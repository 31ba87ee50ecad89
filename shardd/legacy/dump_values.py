r"""Values in dumps: the fields of PostgreSQL's COPY, and the literals of INSERT in both dialects.

Sources of the formats: PostgreSQL's documentation, "COPY, Text Format" and "String Constants"; MySQL's manual, "String
Literals", "Hexadecimal Literals" and "Bit-Value Literals".
"""

from __future__ import annotations

import re
from typing import Final, Literal

from shardd.errors import SourceError

Dialect = Literal["postgresql", "mysql"]

_COPY_ESCAPE: Final = re.compile(rb"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_COPY_LETTERS: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_MYSQL_ESCAPE: Final = re.compile(rb"''|\\(.)", re.DOTALL)
# \% and \_ keep their backslash: they are escapes only in LIKE.
_MYSQL_LETTERS: Final = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"} | {
    b"%": b"\\%",
    b"_": b"\\_",
}
_MYSQL_PREFIX: Final = re.compile(rb"_(\w+)\s*(?=['0])")

VALUES: Final[dict[Dialect, bytes]] = {
    "postgresql": (
        rb"(?:[eE]'(?:[^'\\]++|''|\\.)*'(?!')|[bBxX]?'(?:[^']++|'')*'(?!')|[-+]?[0-9.][0-9.eE+-]*|[A-Za-z_]+)"
        rb"(?:::[\w ]+(?:\([\d, ]*\))?)?"
    ),
    "mysql": (
        rb"(?:(?:_\w+\s*)?'(?:[^'\\]++|''|\\.)*'(?!')|[xXbBnN]'[^']*'|(?:_\w+\s*)?0[xb][0-9A-Fa-f]*"
        rb"|[-+]?[0-9.][0-9.eE+-]*|[A-Za-z_]+)"
    ),
}
"""One literal, as a regular expression over bytes (DOTALL)."""


def read_copy_line(line: bytes, codec: str) -> list[str | None]:
    """The fields of one line of COPY data, without its line end."""
    if b"\\" not in line:
        return [_text(field, codec) for field in line.split(b"\t")]
    return [
        None if field == rb"\N" else _text(_COPY_ESCAPE.sub(_copy_escape, field), codec) for field in line.split(b"\t")
    ]


def read_literal(literal: bytes, dialect: Dialect, codec: str) -> str | None:
    """The value of one literal that `VALUES` matched."""
    return _read_mysql(literal, codec) if dialect == "mysql" else _read_postgresql(literal, codec)


def as_text(value: bytes) -> str:
    """Bytes of a binary column: as text if they are UTF-8, otherwise as hexadecimal digits."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _read_postgresql(literal: bytes, codec: str) -> str | None:
    if b"'" in literal:
        prefix, _, quoted = literal.partition(b"'")
        body = quoted[: quoted.rindex(b"'")].replace(b"''", b"'")
        return _text(_COPY_ESCAPE.sub(_copy_escape, body) if prefix in {b"e", b"E"} else body, codec)
    return _bare(literal.partition(b"::")[0])


def _read_mysql(literal: bytes, codec: str) -> str | None:
    binary = False
    if literal.startswith(b"_") and (match := _MYSQL_PREFIX.match(literal)):
        binary, literal = match[1].lower() == b"binary", literal[match.end() :]
    if literal.startswith(b"'"):
        body = literal[1:-1]
        if b"\\" in body or b"'" in body:
            body = _MYSQL_ESCAPE.sub(_mysql_escape, body)
        return as_text(body) if binary else _text(body, codec)
    head = literal[:2].lower()
    if head in {b"0x", b"x'"}:
        digits = literal[2:].rstrip(b"'").decode()
        return as_text(bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2)))
    if head in {b"0b", b"b'"}:
        return str(int(literal[2:].rstrip(b"'") or b"0", 2))
    if head == b"n'":
        return _text(_MYSQL_ESCAPE.sub(_mysql_escape, literal[2:-1]), codec)
    return _bare(literal)


def _bare(word: bytes) -> str | None:
    text = word.decode()
    return None if text.upper() == "NULL" else text.lower()


def _copy_escape(match: re.Match[bytes]) -> bytes:
    letter = match[1]
    if letter[:1] == b"x" and len(letter) > 1:
        return bytes([int(letter[1:], 16)])
    if letter[:1] in b"01234567":
        return bytes([int(letter, 8) & 0xFF])
    return _COPY_LETTERS.get(letter, letter)


def _mysql_escape(match: re.Match[bytes]) -> bytes:
    letter = match[1]
    return b"'" if letter is None else _MYSQL_LETTERS.get(letter, letter)


def _text(value: bytes, codec: str) -> str:
    try:
        return value.decode(codec)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"the dump declares {codec}, but contains byte {error.object[error.start]:#04x} in {value[:60]!r}; "
            "dump again in UTF-8"
        ) from None
