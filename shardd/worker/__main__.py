"""The worker's process: `python -m shardd.worker --node NODE --channel FD --lifeline FD --log FD [--spare MODULES]`.

The supervisor execs it (a forked child that calls into the Go library would hang) with everything that Go reads at load time
in its environment.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import uvloop

from shardd.file_limit import most_files
from shardd.logs import configure_logs, log_uncaught
from shardd.worker.role import Role
from shardd.worker.worker import ORPHAN_GRACE, Worker


def main() -> int:
    """Run one worker; returns the exit code."""
    # To stderr, a file. Before any library of Go is loaded: Go chains to handlers that it finds.
    faulthandler.enable()
    args = _arguments()
    log = os.fdopen(args.log, "w", encoding="utf-8")
    configure_logs(args.log_level, args.log_format, log, node=args.node)
    log_uncaught()
    _raise_file_limit()
    threading.Thread(target=_watch_lifeline, args=(args.lifeline,), daemon=True, name="lifeline").start()
    # A terminal's ^C reaches the whole group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    role = Role()
    if args.spare is not None:
        role.wait(filter(None, args.spare.split(",")))
    gc.freeze()
    return uvloop.run(Worker(role).run(socket.socket(fileno=args.channel)))


def _watch_lifeline(fd: int) -> None:
    """End the process when the supervisor is gone and the event loop, which should have noticed, did not end it."""
    os.read(fd, 1)
    time.sleep(ORPHAN_GRACE * 2)
    os._exit(70)


def _raise_file_limit() -> None:
    """As far as it may be: a login shell's is 1024, which a few hundred clients use up. Nothing here calls select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a service may forbid it: its limit is what it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most_files()), hard))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shardd-worker", description="A shard's worker; started by shardd start.")
    parser.add_argument("--node", required=True)
    parser.add_argument("--channel", type=int, required=True, help="file descriptor of the socketpair")
    parser.add_argument("--lifeline", type=int, required=True, help="file descriptor that closes with the supervisor")
    parser.add_argument("--log", type=int, required=True, help="file descriptor of the log")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", default="auto")
    parser.add_argument("--spare", metavar="MODULES", help="load these, and wait for a shard")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    # Threads of the library may never end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
