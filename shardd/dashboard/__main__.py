"""The process: `python -m shardd.dashboard --listen FD`, with lines of JSON on stdin (`DashboardSetup`), which stays open."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

import msgspec
import uvloop

from shardd.dashboard.app import Configure, serve
from shardd.logs import configure_logs, log_uncaught
from shardd.supervisor.admin.dashboard import BEAT, DashboardSetup

LONGEST: Final = 4 << 20
"""Bytes of a line: many times the largest config."""


def main() -> int:
    """Serve until the supervisor closes stdin; returns the exit code."""
    parser = argparse.ArgumentParser(prog="shardd-dashboard", description="The web page; started by shardd start.")
    parser.add_argument("--listen", type=int, required=True, help="file descriptor of the listening socket")
    args = parser.parse_args()
    # A terminal's ^C reaches the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return uvloop.run(_run(socket.socket(fileno=args.listen)))


async def _run(listening: socket.socket) -> int:
    lines = await _stdin()
    if not (line := await lines.readline()):
        return 0
    setup = msgspec.json.decode(line, type=DashboardSetup)
    configure_logs(setup.log_level, setup.log_format, sys.stderr, node=setup.node)
    log_uncaught()
    gc.freeze()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with serve(setup, listening) as configure, asyncio.TaskGroup() as tasks:
        listens = tasks.create_task(_configure(configure, lines, ended))
        while not ended.is_set():
            os.write(sys.stdout.fileno(), b"\n")
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await ended.wait()
        listens.cancel()
    return 0


async def _stdin() -> asyncio.StreamReader:
    lines = asyncio.StreamReader(limit=LONGEST)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    return lines


async def _configure(configure: Configure, lines: asyncio.StreamReader, ended: asyncio.Event) -> None:
    """Let each further line decide who may use the page, until there are no more."""
    try:
        while line := await lines.readline():
            configure(msgspec.json.decode(line, type=DashboardSetup))
    finally:
        ended.set()


if __name__ == "__main__":
    sys.exit(main())
