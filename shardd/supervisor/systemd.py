"""Notifications to systemd: the protocol of sd_notify(3), and the watchdog.

Without NOTIFY_SOCKET in the environment every method does nothing. Nothing here raises or blocks: the supervision tick calls it.
What the socket did not take leads the next datagram (systemd reads one in order, and the last value of a variable counts), so a
READY is at most one watchdog interval late. sdnotify and systemd-python lose what the socket does not take.
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
    """The environment for worker processes: without systemd's variables for the supervisor."""
    return {name: value for name, value in environ.items() if name not in _OURS}


class Notifier:
    """Sends notifications to systemd."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ`: with NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, if systemd set them; usually os.environ."""
        self.watchdog_interval: float | None = _watchdog_interval(environ)
        """Seconds between calls of `watchdog()`: half of systemd's timeout; None: the watchdog is off."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._unsent: list[str] = []
        self._status: str | None = None
        self._failing = False

    def ready(self, status: str) -> None:
        """The start, or the reload that `reloading` announced, is over."""
        self._send("READY=1", status=status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; an unchanged text is not sent again."""
        if text != self._status:
            self._send(status=text)

    def extend(self, seconds: float) -> None:
        """The start may take so much longer from now on, whatever systemd's timeout is."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def watchdog(self) -> None:
        """The supervision still runs; call it only when the workers were checked."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        # systemd 253 and later (Type=notify-reload) refuses this without the time, in the same datagram.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", status="reloading the config file")

    def stopping(self, status: str) -> None:
        """The shutdown begins."""
        self._send("STOPPING=1", status=status)

    def failed(self, text: str, errno: int | None) -> None:
        """The process is about to end with this error."""
        self._send(*([] if errno is None else [f"ERRNO={errno}"]), status=text)

    def _send(self, *lines: str, status: str | None = None) -> None:
        if self._socket is None or self._address is None:
            return
        message = [*self._unsent, *lines]
        if status is not None:
            self._status = status
            message.append(f"STATUS={visible(' '.join(status.split()))}")  # a line break would begin another variable
        try:
            self._socket.sendto("\n".join(message).encode("utf-8", "replace"), self._address)
        except OSError as error:
            # Without what a later line makes void: the time of a watchdog's beat is when it arrives.
            statuses = [line for line in message if line.startswith("STATUS=")]
            others = [line for line in message if not line.startswith(("STATUS=", "WATCHDOG="))]
            self._unsent = [*others[-_MAX_UNSENT:], *statuses[-1:]]
            if not self._failing:
                name = self._address.replace("\0", "@")
                _log.warning("systemd cannot be notified", action="notify_failed", error=error, socket=name)
            self._failing = True
        else:
            self._unsent, self._failing = [], False


def _address(name: str) -> str | None:
    if not name:
        return None
    if name.startswith("@"):
        return "\0" + name[1:]  # the abstract namespace, as systemd spells it
    if name.startswith("/"):
        return name
    _log.warning("NOTIFY_SOCKET is neither a path nor an abstract name; systemd is not notified", socket=name)
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
