"""The transports of a worker: loaded when a device needs one, because one of them loads a large library."""

from __future__ import annotations

import asyncio
from typing import Any

from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.transports.base import Events, Transport
from shardd.transports.registry import make_transport

log = get_logger(__name__)


class Transports:
    """By name; each is made once."""

    def __init__(self, settings: dict[str, dict[str, Any]], events: Events) -> None:
        """`settings`: of each transport, as plain data."""
        self._settings = settings
        self._events = events
        self._loaded: dict[str, Transport] = {}
        self._loading = asyncio.Lock()

    def get(self, name: str) -> Transport | None:
        """One that is loaded."""
        return self._loaded.get(name)

    async def load(self, name: str) -> Transport | None:
        """One that is loaded now if it was not; None when it cannot be: then the log says why."""
        async with self._loading:
            if name in self._loaded:
                return self._loaded[name]
            try:
                transport = make_transport(name, self._settings.get(name, {}), self._events)
                await transport.start()
            except SharddError as error:
                # Devices of other transports are not to blame; those of this one report `unavailable` with every job.
                log.error("transport not available", action="transport", transport=name, error=str(error))
                return None
            self._loaded[name] = transport
            return transport

    async def close(self) -> None:
        """Close all."""
        for transport in self._loaded.values():
            await transport.close()

    def open_clients(self) -> int:
        """Clients that are open now."""
        return sum(transport.open_clients() for transport in self._loaded.values())

    def connects(self) -> int:
        """Connect cycles since the start."""
        return sum(transport.connects() for transport in self._loaded.values())
