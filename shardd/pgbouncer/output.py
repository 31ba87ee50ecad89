"""What PgBouncer prints, as events of shardd's log."""

from __future__ import annotations

import asyncio
import re
import time
from typing import IO, Final

from shardd.logs import get_logger

log = get_logger(__name__)

BURST: Final = 20
"""Lines that are logged within `WITHIN`; an unreachable server makes one for each client."""
WITHIN: Final = 60.0
"""Seconds."""
_MOST: Final = 64 * 1024
_LINE: Final = re.compile(r"(?:\S+ \S+ \S+ )?\[\d+\] (?P<level>[A-Z]+) (?P<text>.*)")
"""Time, zone, process id, level and text (libusual's logging.c)."""
_SERIOUS: Final = ("WARNING", "ERROR", "FATAL")


class Output(asyncio.Protocol):
    """Reads the pipe until the process ends."""

    def __init__(self) -> None:
        self.last = ""
        """The last line that was a warning or an error."""
        self.ended = asyncio.Event()
        """Everything was read."""
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None
        self._since = float("-inf")
        self._logged = self._left_out = 0

    async def read(self, pipe: IO[bytes]) -> None:
        """Begin to read."""
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, pipe)

    def close(self) -> None:
        """Read no more."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """A part of the output."""
        *lines, self._rest = (self._rest + data)[-_MOST:].split(b"\n")
        for line in lines:
            self._heard(line.decode(errors="replace").strip())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - part of the protocol
        """The process ended."""
        self.ended.set()

    def _heard(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        level, text = (found["level"], found["text"]) if found else ("WARNING", line)
        if level not in _SERIOUS:
            log.debug("PgBouncer: %s", text, action="pgbouncer")
            return
        self.last = text
        now = time.monotonic()
        if now > self._since + WITHIN:
            if self._left_out:
                log.warning("PgBouncer: %d more lines", self._left_out, action="pgbouncer")
            self._since, self._logged, self._left_out = now, 0, 0
        if self._logged < BURST:
            self._logged += 1
            log.warning("PgBouncer: %s", text, action="pgbouncer")
        else:
            self._left_out += 1
