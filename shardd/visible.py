r"""Untrusted text, escaped so that a terminal displays it and interprets none of it.

References, labels, errors, file names and messages may contain a sequence that clears the screen or reverses the direction of
writing, or a line break after which a line of shardd is forged. Invisible characters are escaped: `ESC` as `\x1b`, a line break
as `\n`, a right-to-left override as `\u202e`. A backslash stays as it is, because this is for reading; the exact text is in
JSON.

`shardd.cli.output` applies this to all that a command prints, `shardd.logs` to all that is logged.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MOST_MARKS: Final = 5
"""Combining marks that a letter may have: no script needs more, and a stack of them covers other lines."""

_BEYOND_ASCII: Final = re.compile(r"[^\n\x20-\x7e]")
_UNSEEN: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(code) for first, last in ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF)) for code in range(first, last + 1)
}
"""Fillers and variation selectors: letters and marks by their category, but invisible."""


def visible(text: str, *, lines: bool = False) -> str:
    """The text, safe for a terminal; `lines`: its line breaks are kept."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = MOST_MARKS  # a mark at the start would combine with whatever precedes the text
    for sign in text:
        if unicodedata.category(sign) in {"Mn", "Me"}:
            marks += 1
        else:
            marks = MOST_MARKS if sign == " " else 0
        keep = (marks <= MOST_MARKS and _is_seen(sign)) or (lines and sign == "\n")
        shown.append(sign if keep else _spelled(sign))
    return "".join(shown)


def visible_json(text: str) -> str:
    r"""The same JSON document, with invisible characters as `\uXXXX` (in its strings; elsewhere JSON is ASCII)."""
    return _BEYOND_ASCII.sub(lambda found: found[0] if _is_seen(found[0]) else _json_spelled(found[0]), text)


def _is_seen(sign: str) -> bool:
    return sign.isprintable() and sign not in _UNSEEN


def _spelled(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()


def _json_spelled(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
