"""What this node's supervisor says: its status, read at most once a second however many look, and what it is asked to do."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from shardd.control_client import ask
from shardd.supervisor.status import Status

FRESH: Final = 1.0
"""Seconds for which a status is shown again."""


class SupervisorClient:
    """Asks the control socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._status: Status | None = None
        self._read_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def status(self) -> Status:
        """The node's status. Raises SharddError."""
        async with self._one_at_a_time:
            if self._status is None or time.monotonic() > self._read_at + FRESH:
                self._status = msgspec.convert(await ask(self._socket, "GET", "/status"), Status)
                self._read_at = time.monotonic()
            return self._status

    async def ask(self, method: str, path: str) -> Any:
        """See `shardd.control_client.ask`."""
        return await ask(self._socket, method, path)
