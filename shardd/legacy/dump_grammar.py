"""What the SQL of a dump looks like, as regular expressions over bytes: just enough to find data in it and to pass over the rest.

Every quantifier that could run long is possessive, so that a pattern takes time in proportion to what it passes over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from shardd.legacy.dump_values import VALUES, Dialect

_NAME: Final = rb'(?:`(?:[^`]|``)+`|"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
_PATH: Final = rb"(?P<path>" + _NAME + rb"(?:\s*\.\s*" + _NAME + rb")*)"
_LIST: Final = rb"\s*(?:\((?P<columns>(?:[^()\"`]|\"[^\"]*\"|`[^`]*`)*)\))?"
ANY_NAME: Final = re.compile(_NAME)
BLANK: Final = re.compile(rb"[\s;]*+")
LINE_COMMENT: Final = re.compile(rb"(?:--|#|\\)[^\n]*+")  # a backslash begins a command of psql
COMMENT: Final = re.compile(rb"/\*.*?\*/", re.DOTALL)
DELIMITER: Final = re.compile(rb"DELIMITER[ \t]+(\S+)", re.IGNORECASE)
USE: Final = re.compile(rb"USE\s+(" + _NAME + rb")", re.IGNORECASE)
COPY: Final = re.compile(rb"COPY\s+" + _PATH + _LIST + rb"\s+FROM\s+stdin\b[^;\n]*;[^\n]*\n", re.IGNORECASE)
INSERT: Final = re.compile(
    rb"(?:INSERT(?:\s+IGNORE)?|REPLACE)\s+INTO\s+"
    + _PATH
    + _LIST
    + rb"\s*(?:OVERRIDING\s+\w+\s+VALUE\s+)?VALUES?(?=[\s(])",
    re.IGNORECASE,
)
CREATE: Final = re.compile(rb"CREATE\s+(?:\w+\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?" + _PATH + rb"\s*\(", re.IGNORECASE)
_COLUMN: Final = re.compile(rb"\s*(?P<name>" + _NAME + rb")\s+(?P<type>\w+)")
_NO_COLUMN: Final = frozenset(
    {b"primary", b"key", b"unique", b"constraint", b"foreign", b"index", b"fulltext", b"spatial", b"check", b"exclude"}
    | {b"period", b"like"}
)
NAMES: Final = re.compile(rb"\bSET\s+NAMES\s+'?(\w+)|\bclient_encoding\s*=\s*'?([\w-]+)", re.IGNORECASE)
UTC: Final = re.compile(rb"\bTIME_ZONE\s*=\s*'\+00:00'", re.IGNORECASE)
SETTING: Final = re.compile(rb"SET\s[^;]*", re.IGNORECASE)
NOT_UTC: Final = re.compile(rb"\bTIME_ZONE\s*=", re.IGNORECASE)

_DOLLARS: Final = rb"\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|\$(?!\w*\$|\w*\Z)"
_PIECES: Final[dict[Dialect, bytes]] = {
    "postgresql": rb"(?:[^;'\"$]++|(?<=\W[eE])'(?>[^'\\]+|\\.|'')*+'(?!\Z)|(?<!\W[eE])'[^']*+'|\"[^\"]*+\"|"
    + _DOLLARS
    + rb")*+",
    "mysql": rb"(?:[^;'\"`/]++|'(?>[^'\\]+|\\.)*+'|\"(?>[^\"\\]+|\\.)*+\"|`[^`]*+`|/\*.*?\*/|/(?!\*|\Z))*+",
}
"""What of a statement can be passed over at once: stops at the statement's end and before what is cut off."""
PASSED: Final = {dialect: re.compile(pieces, re.DOTALL) for dialect, pieces in _PIECES.items()}
WHOLE: Final = {dialect: re.compile(pieces + rb";", re.DOTALL) for dialect, pieces in _PIECES.items()}
ROWS: Final[dict[Dialect, re.Pattern[bytes]]] = {
    dialect: re.compile(rb"\s*+\(\s*+(" + value + rb"(?:\s*+,\s*+" + value + rb")*+)\s*+\)\s*+", re.DOTALL)
    for dialect, value in VALUES.items()
}
LITERALS: Final = {dialect: re.compile(value, re.DOTALL) for dialect, value in VALUES.items()}

CODECS: Final[Mapping[str, str]] = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "unicode": "utf-8",
    "binary": "utf-8",
    "sql_ascii": "utf-8",
    "ascii": "ascii",
    "latin1": "cp1252",  # MySQL's latin1 is Windows-1252
    "win1252": "cp1252",
    "latin9": "iso8859-15",
}
"""The encodings of dumps that can be read, by the names that the two databases give them; both keep ASCII's bytes for ASCII."""


def read_columns(definitions: bytes) -> Iterator[tuple[str, str]]:
    """Name and type of each column of a CREATE TABLE, from what stands behind its first parenthesis."""
    for item in _split(definitions):
        match = _COLUMN.match(item)
        if match is not None and match["name"].lower() not in _NO_COLUMN:
            yield bare_name(match["name"]), match["type"].decode().lower()


def bare_name(name: bytes) -> str:
    """A table's or column's name without its quotes; one without quotes in small letters."""
    mark = name[:1]
    if mark in {b"`", b'"'}:
        return name[1:-1].replace(mark * 2, mark).decode(errors="replace")
    return name.decode().lower()


_PIECE: Final = re.compile(rb"'(?:[^'\\]|''|\\.)*'|`[^`]*`|\"[^\"]*\"|[^'`\"(),]+|.", re.DOTALL)


def _split(statement: bytes) -> Iterator[bytes]:
    """What stands between the commas of a list, up to the parenthesis that ends it."""
    depth, item = 0, b""
    for piece in _PIECE.findall(statement):
        if piece == b")" and depth == 0:
            break
        depth += {b"(": 1, b")": -1}.get(piece, 0)
        if piece == b"," and depth == 0:
            yield item
            item = b""
        else:
            item += piece
    yield item
