"""`shardd status --watch`: the live picture.

It outlives the daemon: when nobody answers it keeps the last picture, says since when, and goes on asking. The terminal
is left as it was found, however the watching ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live

from shardd.cli.client import ask
from shardd.cli.output import Console, Lines, Text, span
from shardd.cli.status.view import render_status
from shardd.errors import SharddError
from shardd.supervisor.status import Status

EVERY: Final = 1.0
"""Seconds between two questions, and between two pictures when nothing else happens."""
WELCOME: Final = 10.0
"""Seconds for which it is said that shardd is back."""

_KEYS: Final = Text("q: quit", "dim")


class Watch:
    """What is known about a daemon that comes and goes."""

    def __init__(self, socket: Path, read: Callable[[Any], Status]) -> None:
        """`read` turns an answer into a Status, or raises SharddError."""
        self._socket = socket
        self._read = read
        self._status: Status | None = None
        self._error: str | None = None
        self._silent_since = time.monotonic()
        self._back_at = float("-inf")
        self._silence = 0.0

    async def look(self) -> None:
        """Ask once."""
        try:
            self._status = self._read(await ask(self._socket, "GET", "/status"))
        except SharddError as error:
            if self._error is None:
                self._silent_since = time.monotonic()
            self._error = str(error)
        else:
            if self._error is not None:
                self._back_at = time.monotonic()
                self._silence = self._back_at - self._silent_since
            self._error = None

    def picture(self, console: Console) -> RenderableType:
        """What is known now, for the console's size."""
        banner = self._banner(time.monotonic())
        if self._status is None:
            return Group(banner)
        stale = self._error is not None
        return render_status(self._status, width=console.width, height=console.height, banner=banner, stale=stale)

    def _banner(self, now: float) -> Text:
        if self._error is not None:
            silent = now - self._silent_since
            lost = Lines.assemble(
                (f"no answer for {span(silent)}" if silent >= 1 else "no answer", "bold red"), f": {self._error}"
            )
            if self._status is not None:
                lost.append("\nwhat follows was the last answer; ", "dim")
            else:
                lost.append("\n")
            return lost.append("still asking, q: quit", "dim")
        if now - self._back_at < WELCOME:
            return Text.assemble((f"shardd is back after {span(self._silence)}", "bold green"), ("; q: quit", "dim"))
        return _KEYS


async def watch_status(watch: Watch, console: Console) -> None:
    """Paint until q, ^C or a signal to end."""
    loop = asyncio.get_running_loop()
    changed, ended = asyncio.Event(), asyncio.Event()

    def end() -> None:
        ended.set()
        changed.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    asking = loop.create_task(_keep_asking(watch, changed))
    try:
        with _keys(loop, end), Live(console=console, screen=True, auto_refresh=False) as live:
            while not ended.is_set():
                live.update(watch.picture(console), refresh=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await changed.wait()
                changed.clear()
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def _keep_asking(watch: Watch, changed: asyncio.Event) -> None:
    while True:
        await watch.look()
        changed.set()
        await asyncio.sleep(EVERY)


@contextlib.contextmanager
def _keys(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> Iterator[None]:
    """Call `end` when q is pressed or the keyboard goes away; without a keyboard, do nothing."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def pressed() -> None:
        try:
            keys = os.read(keyboard, 64)
        except OSError:
            keys = b""
        if not keys or b"q" in keys.lower():
            end()

    try:
        # Single keys without waiting for Enter; ^C stays a signal.
        tty.setcbreak(keyboard)
        loop.add_reader(keyboard, pressed)
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
