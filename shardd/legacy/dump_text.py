"""A sliding window over the bytes of a dump, in which patterns are matched; only the window is in memory."""

from __future__ import annotations

import re
from typing import Final, Protocol

from shardd.errors import SourceError

CHUNK: Final = 1 << 20
"""The least number of bytes to read at once."""
LONGEST: Final = 256 << 20
"""The most bytes of one row or literal."""
LOOKBEHIND: Final = 8
"""Bytes kept before the place, because a pattern may look back."""


class Stream(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class DumpText:
    """The text and the current place in it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._before = 0
        self.data = b""
        self.place = 0
        self.ended = False

    @property
    def at_line_start(self) -> bool:
        """Whether the place is at the start of a line."""
        return self.place == 0 or self.data[self.place - 1 : self.place] == b"\n"

    @property
    def offset(self) -> int:
        """The place, in bytes from the start of the dump."""
        return self._before + self.place

    def fill(self) -> bool:
        """Read more; False at the end. Unmatched text is kept, so the window may grow: SourceError beyond LONGEST."""
        rest = len(self.data) - self.place
        if rest > LONGEST:
            raise SourceError(
                f"the dump has no end of a value or row after byte {self.offset:,}: is it complete, and written by "
                "pg_dump or mysqldump?"
            )
        chunk = b"" if self.ended else self._stream.read(max(CHUNK, rest))
        if not chunk:
            self.ended = True
            return False
        start = max(0, self.place - LOOKBEHIND)
        self.data = self.data[start:] + chunk
        self._before += start
        self.place -= start
        return True

    def ensure(self, size: int) -> None:
        """Read until `size` bytes follow the place, or the dump ends."""
        while len(self.data) - self.place < size and self.fill():
            pass

    def peek(self) -> bytes:
        """The next byte; none at the end."""
        self.ensure(1)
        return self.data[self.place : self.place + 1]

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Move past a match at the place; None if the text in memory does not match."""
        match = pattern.match(self.data, self.place)
        if match is not None:
            self.place = match.end()
        return match

    def await_take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Like `take`, but read until it matches; None at the end. For patterns whose match does not grow with more text."""
        while (match := pattern.match(self.data, self.place)) is None:
            if not self.fill():
                return None
        self.place = match.end()
        return match

    def skip_through(self, mark: bytes) -> None:
        """Move past the next `mark`, or to the end of the dump."""
        while True:
            found = self.data.find(mark, self.place)
            if found >= 0:
                self.place = found + len(mark)
                return
            # The mark may be split between two reads.
            self.place = max(self.place, len(self.data) - len(mark) + 1)
            if not self.fill():
                self.place = len(self.data)
                return

    def line(self) -> bytes | None:
        """The next line without its end; None at the end of the dump."""
        while (end := self.data.find(b"\n", self.place)) < 0:
            if not self.fill():
                rest, self.place = self.data[self.place :], len(self.data)
                return rest or None
        line = self.data[self.place : end]
        self.place = end + 1
        return line[:-1] if line.endswith(b"\r") else line
