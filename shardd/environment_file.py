r"""The syntax of the files that systemd reads for `EnvironmentFile=`, with systemd's own results.

The unit takes the values of `${NAME}` from such a file, and commands must see the same ones. A shell would not do: it expands
`$` and splits at spaces. Facts from systemd.exec(5) and from src/basic/env-file.c of systemd 252 to 257:

- A line is `NAME=value`. Blanks around both are dropped. Lines that begin with `#` or `;`, or that have no `=`, are ignored.
- In `'…'` everything is literal, also line breaks. In `"…"` a backslash keeps `"`, `\`, a backtick or `$`, joins two lines, and
  is literal before anything else. Text and quotes may follow a closing quote; after unquoted text a quote is literal.
- Unquoted, a backslash keeps any character and joins two lines. Nothing is expanded anywhere.
- A carriage return ends a line as a line feed does. What the end of the file cuts off counts as it is.
- The last assignment of a name counts. What is not a name is ignored. A NUL, or a name or value that is not UTF-8, makes systemd
  drop the whole file, without an error where the unit has `EnvironmentFile=-`.
- Before systemd 254 a comment that ends in a backslash includes the next line, since then it does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_BLANKS: Final = re.compile(r"[ \t]*")
_EMPTY: Final = re.compile(r"[ \t\n\r]*")
_NOTHING: Final = re.compile(r"[ \t]*(?:[#;\n\r]|\Z)")
_COMMENT: Final = re.compile(r"(?:\\[^\n\r]|[^\\\n\r])*(?:(?P<joined>\\[\n\r])|\\\Z)?")
_KEY: Final = re.compile(r"(?P<key>[^\n\r][^=\n\r]*)(?P<equals>=)?")
_SINGLE: Final = re.compile(r"'(?P<inner>[^']*)(?P<end>'?)")
_DOUBLE: Final = re.compile(r'"(?P<inner>(?:\\[\s\S]|[^"\\])*)\\?(?P<end>"?)')
_PLAIN: Final = re.compile(r"(?P<inner>(?:[ \t]*(?:\\[\s\S]?|[^\\ \t\n\r]))*)[ \t]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED: Final = re.compile(r"\\([\s\S]?)")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A line that was probably meant otherwise; `text` completes the sentence `line 3 …` and shows nothing of the line."""

    line: int
    text: str


@dataclass(slots=True)
class Environment:
    """What a file sets."""

    variables: dict[str, str] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)


class UnreadableEnvironmentError(ValueError):
    """systemd takes nothing from the file; the text has the reason and the fix, and no value."""


def parse_environment(content: bytes) -> Environment:
    """Read the content of a file. Raises UnreadableEnvironmentError."""
    if (at := content.find(0)) >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise UnreadableEnvironmentError(f"line {line} has a NUL, so systemd ignores the whole file; delete it")
    return _Scanner(content.decode("utf-8", "surrogateescape")).read()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found = Environment()

    def read(self) -> Environment:
        while self._skip(_EMPTY) < len(self._text):
            if self._text[self._at] in "#;":
                self._comment()
            else:
                self._assignment()
        return self._found

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._take(pattern)
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        assert match is not None  # each pattern matches where it is tried
        self._at = match.end()
        return match

    def _line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

    def _flaw(self, at: int, text: str) -> None:
        self._found.flaws.append(Flaw(self._line(at), text))

    def _comment(self) -> None:
        while self._take(_COMMENT)["joined"]:
            # Only here the versions of systemd differ, unless the next line is empty or a comment itself.
            if not _NOTHING.match(self._text, self._at):
                self._flaw(
                    self._at,
                    "follows a comment that ends in a backslash, so some versions of systemd ignore it; delete that",
                )

    def _assignment(self) -> None:
        begin = self._at
        key = self._take(_KEY)
        if not key["equals"]:
            self._flaw(begin, "is not NAME=value, so systemd ignores it")
            return
        name, value = key["key"].rstrip(" \t"), self._value()
        if not _is_unicode(name + value):
            raise UnreadableEnvironmentError(
                f"line {self._line(begin)} is not UTF-8, so systemd ignores the whole file; save it as UTF-8"
            )
        if _NAME.fullmatch(name):
            self._found.variables[name] = value
        elif name.startswith("\ufeff"):
            self._flaw(begin, "begins with a byte order mark, so systemd ignores it; save the file without one")
        elif name.startswith("export"):
            self._flaw(begin, "begins with `export`, so systemd ignores it; delete the word")
        else:
            self._flaw(begin, "does not begin with a name of A-Z a-z 0-9 _, so systemd ignores it")

    def _value(self) -> str:
        value = ""
        while (sign := self._text[(begin := self._skip(_BLANKS)) : begin + 1]) in {"'", '"'}:
            quoted = self._take(_SINGLE if sign == "'" else _DOUBLE)
            value += quoted["inner"] if sign == "'" else _ESCAPED.sub(_in_double_quotes, quoted["inner"])
            if not quoted["end"]:
                self._flaw(begin, "opens a quote that is never closed")
        return value + _ESCAPED.sub(_unquoted, self._take(_PLAIN)["inner"])


def _in_double_quotes(escape: re.Match[str]) -> str:
    if escape[1] == "\n":
        return ""
    return escape[1] if escape[1] in {'"', "\\", "`", "$"} else escape[0]


def _unquoted(escape: re.Match[str]) -> str:
    return "" if escape[1] in {"\n", "\r"} else escape[1]


def _is_unicode(text: str) -> bool:
    """Whether systemd accepts the text: no bytes that are not UTF-8, which Python decodes to surrogates, and no noncharacters."""
    return not any(
        0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE for code in map(ord, text)
    )
