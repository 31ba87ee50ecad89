"""The first moments of `shardd start`, before what it needs is loaded: signals are kept, and errors reach systemd.

Imports nothing but the standard library's smallest parts, because a SIGHUP before `watch` ends the process. What is left is the
start of the interpreter.
"""

from __future__ import annotations

import os
import signal
import sys

_asked = False


def watch() -> None:
    """Keep a SIGHUP for the supervisor, if this process is to become one. SIGTERM and SIGINT end it: nothing has begun."""
    if is_start():
        signal.signal(signal.SIGHUP, _note)


def is_start() -> bool:
    """Whether the command line is `shardd start`."""
    return sys.argv[1:2] == ["start"]


def reload_asked() -> bool:
    """Whether SIGHUP came since `watch`."""
    return _asked


def report_failure(text: str, cause: BaseException | None) -> None:
    """Let `systemctl status` show why the start failed; without systemd, nothing."""
    if not is_start() or "NOTIFY_SOCKET" not in os.environ:
        return
    from shardd.supervisor.systemd import Notifier  # noqa: PLC0415  # only for a start that failed

    Notifier(os.environ).failed(text, cause.errno if isinstance(cause, OSError) else None)


def _note(_number: int, _frame: object) -> None:
    global _asked  # noqa: PLW0603  # of the process, like the signal's handler
    _asked = True
