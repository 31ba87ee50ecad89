"""How many clients of a worker may be open, as the supervisor or the config says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from shardd.ipc import StoreAccess
from shardd.transports.whatsapp.sessions.dsn import IDLE_SECONDS, SCARCE_IDLE_SECONDS

OF_LATE: Final = 300.0
"""Seconds for which it is known how many clients gave way to others."""


class Room:
    """Counts the clients that are open, opening or closing."""

    def __init__(self, max_open_clients: int | None, access: StoreAccess, changed: Callable[[], None]) -> None:
        """`max_open_clients`: as the config says; `changed`: called when there may be more room, or less."""
        self._changed = changed
        self.access = access
        """How they reach the session store."""
        self.taken = 0
        self.opening = 0
        """Clients that have a place and are not open yet."""
        self.gave_way_at = deque[float]()
        """When clients were closed to make room, although their devices are to send again soon."""
        self.ending = 0
        """Closed clients whose connections the server is about to end; `taken` contains them."""
        self.freed = asyncio.Event()
        """Set when there may be room; cleared by who waits for that."""
        self._max_open_clients = max_open_clients

    @property
    def most(self) -> int:
        """Clients that may be open."""
        clients = self.access.clients
        return clients if self._max_open_clients is None else min(self._max_open_clients, clients)

    def gave_way(self, now: float) -> int:
        """How many of late."""
        while self.gave_way_at and self.gave_way_at[0] < now - OF_LATE:
            self.gave_way_at.popleft()
        return len(self.gave_way_at)

    @property
    def full(self) -> bool:
        """Whether no other may open."""
        return self.taken >= self.most

    @property
    def why_full(self) -> str:
        """What limits them."""
        return self.access.limit

    @property
    def idle_seconds(self) -> float:
        """After which the server ends a client's idle connections."""
        return SCARCE_IDLE_SECONDS if self._scarce else IDLE_SECONDS

    @property
    def _scarce(self) -> bool:
        """Whether each connection to PostgreSQL counts."""
        return self.access.pooler is None and self.access.scarce

    def change(self, access: StoreAccess) -> None:
        """For clients that open from now on."""
        self.access = access
        self.is_freed()

    def is_freed(self) -> None:
        """There may be room: a client was closed, or may be closed from now on."""
        self.freed.set()
        self._changed()

    def release(self, *, at_once: bool) -> None:
        """A client is closed. Its connections stay until the server ends them, which counts unless `at_once`."""
        if self._scarce and not at_once:
            self.ending += 1
            asyncio.get_running_loop().call_later(1.5 * SCARCE_IDLE_SECONDS, self._ended)
        else:
            self._free()

    def _ended(self) -> None:
        self.ending -= 1
        self._free()

    def _free(self) -> None:
        self.taken -= 1
        self.is_freed()
