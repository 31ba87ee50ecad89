"""The transports of a worker: each is loaded when a device needs it, because one of them loads a large library."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

from shardd.errors import SharddError
from shardd.ipc import StoreAccess, TransportSpec
from shardd.logs import get_logger
from shardd.transports.base import Events, Surroundings, Transport

log = get_logger(__name__)


class Transports:
    """By name; each is made once."""

    def __init__(self, specs: Mapping[str, TransportSpec], surroundings: Surroundings, events: Events) -> None:
        """`surroundings`: what each gets besides its settings."""
        self._specs = specs
        self._surroundings = surroundings
        self._events = events
        self._loaded: dict[str, Transport] = {}
        self._loading = asyncio.Lock()
        self._held: set[str] = set()

    def get(self, name: str) -> Transport | None:
        """A transport that is loaded."""
        return self._loaded.get(name)

    async def load(self, name: str) -> Transport | None:
        """A transport, loaded now if it was not; None when it cannot be, with the reason in the log."""
        async with self._loading:
            if name in self._loaded:
                return self._loaded[name]
            try:
                transport = await self._make(name)
                await transport.start()
            except SharddError as error:
                # Devices of other transports go on; those of this one report `unavailable` with every job.
                log.error("transport not available", action="transport", transport=name, error=str(error))
                return None
            # What changed while it was started.
            transport.hold_logins(held=name in self._held)
            transport.change_store_access(self._surroundings.store_access)
            self._loaded[name] = transport
            return transport

    async def _make(self, name: str) -> Transport:
        spec = self._specs.get(name)
        if spec is None:
            raise SharddError(f"transport {name!r} is unknown: one of {', '.join(self._specs)}")
        module, _, attribute = spec.implementation.partition(":")
        try:
            # In a thread: a library takes half a second, in which devices of other transports would wait.
            implementation: type[Transport] = getattr(await asyncio.to_thread(import_module, module), attribute)
        except ImportError as error:
            raise SharddError(f"transport {name!r} cannot be loaded: {error}") from error
        transport = implementation(SimpleNamespace(**spec.settings), self._surroundings, self._events)
        transport.in_flight = spec.in_flight
        return transport

    def change_store_access(self, access: StoreAccess) -> None:
        """The session store is reached in another way from now on."""
        self._surroundings = replace(self._surroundings, store_access=access)
        for transport in self._loaded.values():
            transport.change_store_access(access)

    def hold_logins(self, name: str, *, held: bool) -> None:
        """See `shardd.ipc.HoldLogins`; also of one that is loaded later."""
        (self._held.add if held else self._held.discard)(name)
        if (transport := self._loaded.get(name)) is not None:
            transport.hold_logins(held=held)

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

    def gave_way(self) -> int:
        """Clients that were closed of late to make room, although their devices will send again soon."""
        return sum(transport.gave_way() for transport in self._loaded.values())

    def previews_left_out(self) -> int:
        """Texts since the start whose link has no preview, though one was wanted."""
        return sum(transport.previews_left_out() for transport in self._loaded.values())
