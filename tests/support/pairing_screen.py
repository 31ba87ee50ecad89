"""The screen of a pairing, on a pseudo-terminal of its own: read by the camera of a simulated phone."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Final, Self

from tests.support.terminal_qr import scan_lines

CLEAR: Final = "\x1b[2J"
LEAVE: Final = "\x1b[?1049l"
CONTROLS: Final = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")
LINES: Final = 60
"""Of the terminal: enough for a code of any size, and the words below it."""


class PairingScreen:
    """A command that draws a QR code; `with` ends it."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], *, columns: int) -> None:
        self._fd, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        self._process = subprocess.Popen(
            command, env={**environ, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._shown = b""

    def __enter__(self) -> Self:
        """The command is running."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        os.close(self._fd)

    def drawn(self, *, colours: bool) -> list[str]:
        """The lines of the last picture."""
        picture = self._shown.decode(errors="replace").rpartition(CLEAR)[2]
        return [line if colours else CONTROLS.sub("", line) for line in picture.split("\r\n")]

    def code(self, seconds: float) -> str:
        """The text of the code on the screen. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not (codes := scan_lines(self.drawn(colours=False))):
            if not self._read(deadline):
                raise TimeoutError(f"no QR code was drawn: {self._text()}")
        return codes[0]

    def end(self, seconds: float) -> str:
        """What the command says at its end, when the terminal is restored. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        if self._process.poll() is None:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        return self._text().rpartition("\n\n")[2]

    def _text(self) -> str:
        text = self._shown.decode(errors="replace").rpartition(LEAVE)[2]
        return CONTROLS.sub("", text).replace("\r\n", "\n").strip()

    def _read(self, deadline: float) -> bool:
        """Read what comes next; whether something came before the end of the command, or the deadline."""
        if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            read = os.read(self._fd, 65536)
        except OSError:  # nobody has the other end open any more
            return False
        self._shown += read
        return bool(read)
