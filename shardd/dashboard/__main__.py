"""The process: `python -m shardd.dashboard --listen FD`, with a line of JSON on stdin (`DashboardSetup`), which stays open."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys

import msgspec
import uvloop

from shardd.dashboard.app import serve
from shardd.logs import configure_logs, log_uncaught
from shardd.supervisor.admin.dashboard import BEAT, DashboardSetup


def main() -> int:
    """Serve until the supervisor closes stdin; returns the exit code."""
    parser = argparse.ArgumentParser(prog="shardd-dashboard", description="The web page; started by shardd start.")
    parser.add_argument("--listen", type=int, required=True, help="file descriptor of the listening socket")
    args = parser.parse_args()
    # A terminal's ^C reaches the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup = msgspec.json.decode(sys.stdin.buffer.readline(), type=DashboardSetup)
    configure_logs(setup.log_level, setup.log_format, sys.stderr, node=setup.node)
    log_uncaught()
    gc.freeze()
    uvloop.run(_run(setup, socket.socket(fileno=args.listen)))
    return 0


async def _run(setup: DashboardSetup, listening: socket.socket) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)  # nothing more is written to it: readable is closed
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with serve(setup, listening):
        while not ended.is_set():
            os.write(sys.stdout.fileno(), b"\n")
            try:
                async with asyncio.timeout(BEAT):
                    await ended.wait()
            except TimeoutError:
                continue


if __name__ == "__main__":
    sys.exit(main())
