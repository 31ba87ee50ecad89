"""What the supervisor tells systemd: the notify protocol of sd_notify(3), and the watchdog.

Without NOTIFY_SOCKET in the environment every method does nothing, so callers need not ask. Nothing here raises or
blocks: the supervision tick calls it. What the socket did not take is kept and leads the next datagram (systemd reads
one in order and the last word on a subject wins), so a READY is late at worst, by one watchdog beat.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from shardd.logs import get_logger
from shardd.visible import visible

_log = get_logger(__name__)

_OURS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
_MAX_UNSENT: Final = 64  # lines; a status per tick must not pile up while systemd is away


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for worker processes: without what systemd addressed to the supervisor alone."""
    return {name: value for name, value in environ.items() if name not in _OURS}


class Notifier:
    """The supervisor's voice towards systemd."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ`: where systemd left NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; usually os.environ."""
        self.watchdog_interval: float | None = _watchdog_interval(environ)
        """Seconds between calls of `watchdog()`: half of what systemd waits; None: it does not wait for them."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._unsent: list[str] = []
        self._status: str | None = None
        self._complained = False

    @property
    def active(self) -> bool:
        """Whether systemd listens."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """The start is over, or the reload that `reloading` announced."""
        self._say("READY=1", status=status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same text again is not sent again."""
        if text != self._status:
            self._say(status=text)

    def watchdog(self) -> None:
        """The supervision still runs; to be called when the workers were looked at, and at no other time."""
        self._say("WATCHDOG=1")

    def reloading(self, status: str = "reloading the config file") -> None:
        """A reload begins; `ready` ends it."""
        # systemd 253 and later (Type=notify-reload) refuses this without the time, in the same datagram.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("RELOADING=1", f"MONOTONIC_USEC={microseconds}", status=status)

    def stopping(self, status: str) -> None:
        """The shutdown begins."""
        self._say("STOPPING=1", status=status)

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, *lines: str, status: str | None = None) -> None:
        if self._socket is None or self._address is None:
            return
        said = [*self._unsent, *lines]
        if status is not None:
            self._status = status
            said.append(f"STATUS={visible(' '.join(status.split()))}")  # a line break would begin another assignment
        try:
            self._socket.sendto("\n".join(said).encode("utf-8", "replace"), self._address)
        except OSError as error:
            self._unsent = _compact(said)
            if not self._complained:
                name = self._address.replace("\0", "@")
                _log.warning("systemd cannot be told", action="notify_failed", error=error, socket=name)
            self._complained = True
        else:
            self._unsent = []
            self._complained = False


def _compact(lines: list[str]) -> list[str]:
    """`lines` without those that a later one makes void: the time of the watchdog's beat is when it arrives."""
    statuses = [line for line in lines if line.startswith("STATUS=")]
    rest = [line for line in lines if not line.startswith(("STATUS=", "WATCHDOG="))]
    return [*rest[-_MAX_UNSENT:], *statuses[-1:]]


def _address(name: str) -> str | None:
    if not name:
        return None
    if name.startswith("@"):
        return "\0" + name[1:]  # the abstract namespace, as systemd spells it
    if name.startswith("/"):
        return name
    _log.warning("NOTIFY_SOCKET is neither a path nor an abstract name; systemd is told nothing", socket=name)
    return None


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for the process that started this one
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        _log.warning("WATCHDOG_USEC is not a number; the watchdog stays off", value=environ["WATCHDOG_USEC"])
        return None
    return microseconds / 2_000_000 if microseconds > 0 else None
