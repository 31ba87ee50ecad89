"""`shardd status`: whether the node is healthy, once or as a live picture.

`--watch` survives the daemon: without an answer it keeps the last picture, shows since when it is stale, and asks again. The
terminal is restored however it ends.
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

import click
import msgspec
from rich.console import Group, RenderableType
from rich.live import Live

from shardd.cli.help import examples
from shardd.cli.node import ask_daemon
from shardd.cli.options import ReadBy, daemon_config_option, json_option
from shardd.cli.output import Console, Lines, Text, make_console, print_json, say
from shardd.cli.status.view import render_status
from shardd.config import Config
from shardd.config.values import Seconds
from shardd.control_client import ask, glance
from shardd.errors import NotRunningError, NotStartedError, SharddError, UsageError
from shardd.supervisor.status import Status
from shardd.words import span

QUIET: Final = 1.0
"""Seconds of waiting before it is reported."""
POLL: Final = 0.2
"""Seconds between looks while it waits."""
DEGRADED: Final = 1
"""Exit code when shardd answers and is not healthy."""
EVERY: Final = 1.0
"""Seconds between two requests, and between two pictures when nothing else happens."""
BACK_SHOWN: Final = 10.0
"""Seconds for which the picture shows that shardd is back."""

_KEYS: Final = Text("q: quit", "dim")


@click.command(epilog=examples("shardd status --watch", "shardd status --wait --timeout=5m"))
@daemon_config_option
@json_option("Print the object described above, for programs.")
@click.option("--wait", is_flag=True, help="Wait until shardd is ready, also if it is not running yet.")
@click.option(
    "--timeout",
    type=ReadBy(Seconds("0", "1d")),
    default="60s",
    show_default=True,
    help="How long to --wait.",
)
@click.option("--watch", is_flag=True, help="Show a live picture, also while shardd stops and starts; q or ^C ends it.")
def status(config: Config, as_json: bool, watch: bool, wait: bool, timeout: float) -> None:
    """Show shards, queue and problems.

    Exit codes: 0 healthy; 1 degraded, starting or stopping; 3 not running; 69 running, but unreachable; 75 not ready in time
    (--wait); 78 the config does not say where shardd is. Other errors in the config file are only a warning.

    With --json: an object with version, node, pid, state (starting, running, stopping), starting (what the start is doing, or
    null), ready (started, and holding its leases or standing by), healthy, problems and notes (lists of
    sentences), problem_kinds (number of problems by kind), problems_by_kind, started_at, now, database, config, nodes (all
    that share the database) and shards (lists), totals, and queue (null until it was counted). Times are POSIX seconds,
    durations seconds, sizes bytes. Fields are added over time, never renamed.
    """
    if watch:
        console = make_console()
        if as_json or not sys.stdout.isatty() or console.is_dumb_terminal:
            raise UsageError("--watch needs a terminal; a program repeats: shardd status --json")
        asyncio.run(watch_status(Watch(config.control_socket), console))
        return
    if wait:
        asyncio.run(wait_until_ready(config, timeout))
    answer = asyncio.run(ask_daemon(config, "GET", "/status"))
    node = read_status(answer)
    if as_json:
        print_json(answer)
    else:
        console = make_console()
        console.print(render_status(node, width=console.width))
    if not node.healthy:
        raise click.exceptions.Exit(DEGRADED)


async def wait_until_ready(config: Config, timeout: float) -> None:
    """Wait for the end of a start, also of one that has not begun yet. Raises NotRunningError, NotStartedError."""
    began, said = time.monotonic(), ""
    while True:
        status = glance(config.control_socket)
        if status is not None and status["ready"]:
            return
        waited = time.monotonic() - began
        now = (
            "no shardd answers" if status is None else status["starting"] or f"it is {status['state']}, without leases"
        )
        if waited >= timeout:
            text = f"shardd is not ready after {timeout:g} s: {now}"
            raise NotRunningError(text) if status is None else NotStartedError(text)
        if now != said and waited >= QUIET:
            said = now
            say(f"waiting: {now}", err=True)
        await asyncio.sleep(POLL)


def read_status(answer: Any) -> Status:
    """The answer of the daemon, typed. Raises SharddError when the daemon is of another release."""
    try:
        return msgspec.convert(answer, Status)
    except msgspec.ValidationError as error:
        raise SharddError(f"the running shardd is of another release than this command ({error}): restart it") from None


class Watch:
    """What is known about a daemon that comes and goes."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._status: Status | None = None
        self._error: str | None = None
        self._silent_since = time.monotonic()
        self._back_at = float("-inf")
        self._silence = 0.0

    async def look(self) -> None:
        """Ask once."""
        try:
            self._status = read_status(await ask(self._socket, "GET", "/status"))
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
                (f"no answer for {span(silent)}" if silent >= 1 else "no answer", "bold red"), f": {self._error}\n"
            )
            last = "the last answer is below; " if self._status is not None else ""
            return lost.append(f"{last}still asking, q: quit", "dim")
        if now - self._back_at < BACK_SHOWN:
            return Text.assemble((f"shardd is back after {span(self._silence)}", "bold green"), ("; q: quit", "dim"))
        return _KEYS


async def watch_status(watch: Watch, console: Console) -> None:
    """Redraw until q, ^C or a terminating signal."""
    loop = asyncio.get_running_loop()
    changed, ended = asyncio.Event(), asyncio.Event()

    def end() -> None:
        ended.set()
        changed.set()

    async def keep_asking() -> None:
        while True:
            await watch.look()
            changed.set()
            await asyncio.sleep(EVERY)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    asking = loop.create_task(keep_asking())
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


@contextlib.contextmanager
def _keys(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> Iterator[None]:
    """Call `end` when q is pressed or the terminal is closed; without a terminal as stdin, do nothing."""
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
