"""A window over the bytes of a dump: patterns are matched in it, and it slides on, so that little is in memory."""

from __future__ import annotations

import re
from typing import Final, Protocol

from shardd.errors import SourceError

CHUNK: Final = 1 << 20
"""Bytes that are read at once, at least."""
LONGEST: Final = 256 << 20
"""Bytes that one row or literal may have."""
LOOKBEHIND: Final = 8
"""Bytes before the place that stay, because a pattern may look back."""


class Stream(Protocol):
    """What bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class DumpText:
    """The text, and a place in it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._before = 0
        self.data = b""
        self.place = 0
        self.ended = False

    @property
    def at_line_start(self) -> bool:
        """Whether the place is the beginning of a line."""
        return self.place == 0 or self.data[self.place - 1 : self.place] == b"\n"

    @property
    def offset(self) -> int:
        """The place, in bytes from the beginning."""
        return self._before + self.place

    def fill(self) -> bool:
        """Read on; False at the end. What is not matched yet stays and doubles. Raises SourceError when it grows too long."""
        rest = len(self.data) - self.place
        if rest > LONGEST:
            raise SourceError(
                f"the dump has no end of a value or row behind byte {self.offset:,}: is it whole, and written by "
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
        """Have so many bytes behind the place, unless the dump ends before."""
        while len(self.data) - self.place < size and self.fill():
            pass

    def peek(self) -> bytes:
        """The next byte; none at the end."""
        self.ensure(1)
        return self.data[self.place : self.place + 1]

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Go past a match at the place; None, and nothing happens, when what is in memory does not match."""
        match = pattern.match(self.data, self.place)
        if match is not None:
            self.place = match.end()
        return match

    def await_take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Like `take`, reading on until it matches; None at the end of the dump. For what more text cannot prolong."""
        while (match := pattern.match(self.data, self.place)) is None:
            if not self.fill():
                return None
        self.place = match.end()
        return match

    def skip_through(self, mark: bytes) -> bool:
        """Go past the next `mark`; False, at the end, when there is none."""
        while True:
            found = self.data.find(mark, self.place)
            if found >= 0:
                self.place = found + len(mark)
                return True
            # The mark may be cut in two.
            self.place = max(self.place, len(self.data) - len(mark) + 1)
            if not self.fill():
                self.place = len(self.data)
                return False

    def line(self) -> bytes | None:
        """The next line without its end; None at the end of the dump."""
        while (end := self.data.find(b"\n", self.place)) < 0:
            if not self.fill():
                rest, self.place = self.data[self.place :], len(self.data)
                return rest or None
        line = self.data[self.place : end]
        self.place = end + 1
        return line[:-1] if line.endswith(b"\r") else line
