"""A daemon of the clone, for scripts that show something: started, awaited, and stopped with the script however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shardd.config import Config
from shardd.control_client import ask_now
from shardd.embedded import launch
from shardd.errors import NotRunningError, SharddError

SHARDD = Path(sys.executable).with_name("shardd")
START_LIMIT = 180.0
"""Seconds until all workers must be running, on a slow machine."""
STOP_LIMIT = 90.0
"""Seconds for the daemon to stop."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal requests the end."""


_held: list[int] | None = None
"""The signals that came while they are held; None: they are not."""


def stop_on_signals() -> None:
    """Raise Stopped when the script is asked to end."""
    for number in ENDING:
        signal.signal(number, _stop)


def _stop(number: int, _: object) -> None:
    if _held is None:
        raise Stopped(number)
    _held.append(number)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Raise Stopped at the end of the block, in which a process is started: by then it is known, and is ended."""
    global _held  # noqa: PLW0603  # of the process, like the handlers
    held = _held = []
    try:
        yield
    finally:
        _held = None
    if held:
        raise Stopped(held[0])


@contextlib.contextmanager
def running_daemon(config_file: Path, config: Config, environ: Mapping[str, str] | None = None) -> Iterator[None]:
    """A running shardd, which is stopped at the end; `environ`: its environment, None: ours. Raises SharddError."""
    log = config.state_dir / "shardd.log"
    # Bound to this process: if it is killed, the daemon stops too.
    tie = [sys.executable, "-I", "-S", launch.__file__, str(os.geteuid()), str(os.getegid()), str(os.getpid())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*tie, str(SHARDD), "start", f"--config={config_file}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environ,
        )  # fmt: skip
    try:
        _await_running(process, config, log)
        yield
    finally:
        _end(process)


def status_of(config: Config) -> dict[str, Any]:
    """What `shardd status --json` prints. Raises SharddError."""
    status: dict[str, Any] = ask_now(config.control_socket, "GET", "/status")
    return status


def _await_running(process: subprocess.Popen[bytes], config: Config, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(NotRunningError):
            if status_of(config)["state"] == "running":
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    lines = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    ended = f"ended with status {process.returncode}" if process.returncode is not None else "does not become ready"
    raise SharddError(f"shardd {ended}. The end of {log}:\n{lines}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the daemon to drain and stop, and wait; a second ^C makes it stop without draining."""
    stop_now: Callable[..., None] = lambda *_: process.terminate()  # noqa: E731  # a handler in one expression
    for number in ENDING:
        signal.signal(number, stop_now)
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()  # its workers and its PostgreSQL end with it
        process.wait()
