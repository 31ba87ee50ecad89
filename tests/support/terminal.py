"""A pseudo-terminal for a command, and the bytes that are written to it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import struct
import termios
from collections.abc import Mapping
from typing import Final, Self

from tests.support.command import PATIENCE, PROGRAM

COLOURS: Final = re.compile(rb"\x1b\[[0-9;]*m")
SCREEN: Final = re.compile(rb"\x1b\[(\?1049|\?25)[hl]|\x1b\[[0-9;]*[HJK]|\x1b\[[0-9]*A")
"""The control sequences of shardd's own screens: alternate screen, cursor and clearing."""


class Terminal:
    """`shardd` on a pseudo-terminal, which is also its input. `COLUMNS`, `NO_COLOR` and the like are not set."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *arguments: str,
        columns: int = 100,
        lines: int = 30,
        term: str = "xterm-256color",
    ) -> None:
        unset = ("COLUMNS", "LINES", "NO_COLOR")
        self._environ = {**{key: value for key, value in environ.items() if key not in unset}, "TERM": term}
        self._arguments = arguments
        self._size = struct.pack("HHHH", lines, columns, 0, 0)
        self.painted = b""

    async def __aenter__(self) -> Self:
        self.fd, self.inner = os.openpty()
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, self._size)
        self.before = termios.tcgetattr(self.inner)
        self.process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), *self._arguments),
            env=self._environ,
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            start_new_session=True,
        )
        os.set_blocking(self.fd, False)
        self.changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.fd, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        os.close(self.fd)
        os.close(self.inner)

    def _read(self) -> None:
        self.painted += os.read(self.fd, 65536)
        self.changed.set()

    @property
    def text(self) -> str:
        """The output without colours and cursor movements."""
        return SCREEN.sub(b"", COLOURS.sub(b"", self.painted)).decode(errors="replace")

    def type(self, keys: str) -> None:
        """What a person types."""
        os.write(self.fd, keys.encode())

    async def until(self, words: str) -> None:
        """Wait until the output contains the words."""
        async with asyncio.timeout(PATIENCE):
            while words not in self.text:
                self.changed.clear()
                await self.changed.wait()

    async def shows(self, words: str) -> None:
        """Wait until the words are printed again."""
        self.painted = b""
        await self.until(words)

    async def end(self) -> int:
        """The exit code, after all output was read."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
        # Everything that was written is in the terminal's buffer by now.
        while True:
            try:
                self._read()
            except BlockingIOError:
                return code
