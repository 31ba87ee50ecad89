"""What a daemon's processes use while a benchmark works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from benchlib.daemon import Daemon
from benchlib.processes import Usage
from benchlib.watching import watching

LOOK_EVERY: Final = 1.0
"""Seconds: as often as a worker reports. Each look costs the supervisor a little."""


class FleetUsage:
    """Of the workers, and of the supervisor."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.workers = Usage()
        self.supervisor = Usage()
        self.open_clients = 0
        """The most of all workers together, by their heartbeats."""

    async def look(self) -> None:
        """Look once."""
        status = await self._daemon.status()
        self.workers.look(shard["pid"] for shard in status["shards"] if shard["pid"])
        self.supervisor.look([self._daemon.process.pid])
        self.open_clients = max(self.open_clients, status["totals"]["open_clients"])


@asynccontextmanager
async def used_by(daemon: Daemon, every: float = LOOK_EVERY) -> AsyncIterator[FleetUsage]:
    """What is used from now on; complete when this is left."""
    usage = FleetUsage(daemon)
    async with watching(usage.look, every):
        yield usage
