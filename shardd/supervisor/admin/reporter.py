"""Tells systemd that the node has started, how it is, and that the workers are still watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from shardd.logs import get_logger
from shardd.supervisor.admin.node import Node, in_one_line
from shardd.supervisor.services import Service
from shardd.supervisor.systemd import Notifier

log = get_logger(__name__)

TICK: Final = 0.1
"""Seconds between looks at what is to be told."""
STATUS_EVERY: Final = 1.0
"""Seconds between status lines."""


class SystemdReporter(Service):
    """Reports for one node."""

    def __init__(self, notifier: Notifier, node: Node, watched_at: Callable[[], float]) -> None:
        """`watched_at`: when the workers were last looked at, on the monotonic clock."""
        self._notifier = notifier
        self._node = node
        self._watched_at = watched_at

    async def serve(self) -> None:
        """Report, until the node stops."""
        interval = self._notifier.watchdog_interval
        next_watchdog = next_status = told = 0.0
        while True:
            now = time.monotonic()
            # Only if the workers were looked at meanwhile: a pool that hangs must not keep the watchdog quiet.
            if interval is not None and now >= next_watchdog and (watched := self._watched_at()) > told:
                self._notifier.watchdog()
                next_watchdog, told = now + interval, watched
            if now >= next_status:
                self._report()
                next_status = now + STATUS_EVERY
            await asyncio.sleep(TICK)

    def _report(self) -> None:
        text = in_one_line(self._node.status())
        if self._node.state == "starting" and self._node.has_started():
            self._node.state = "running"
            self._notifier.ready(text)
            log.info("running", action="start", status=text)
        elif self._node.state == "running":
            self._notifier.status(text)
