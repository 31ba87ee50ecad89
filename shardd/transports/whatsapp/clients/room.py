"""How many clients of a worker may be open: as many as the config says, or as PostgreSQL has connections for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shardd.ipc import StoreAccess
from shardd.transports.whatsapp.sessions.dsn import IDLE_SECONDS, SCARCE_IDLE_SECONDS


class Room:
    """Counts the clients that are open, opening or closing."""

    def __init__(self, max_open_clients: int, access: StoreAccess, changed: Callable[[], None]) -> None:
        """`changed`: called when there may be more room, or less."""
        self._changed = changed
        self.access = access
        """How they reach the session store."""
        self.taken = 0
        self.ending = 0
        """Closed clients whose connections the server is about to end; `taken` contains them."""
        self.freed = asyncio.Event()
        """Set when there may be room; cleared by who waits for that."""
        self._max_open_clients = max_open_clients

    @property
    def most(self) -> int:
        """Clients that may be open."""
        clients = self.access.clients
        return self._max_open_clients if clients is None else min(self._max_open_clients, clients)

    @property
    def full(self) -> bool:
        """Whether no other may open."""
        return self.taken >= self.most

    @property
    def why_full(self) -> str:
        """What limits them."""
        return "max_open_clients" if self.access.clients is None else "PostgreSQL has no connections for more"

    @property
    def idle_seconds(self) -> float:
        """After which the server ends a client's idle connections."""
        return SCARCE_IDLE_SECONDS if self._scarce else IDLE_SECONDS

    @property
    def _scarce(self) -> bool:
        """Whether each connection to PostgreSQL counts."""
        return self.access.pooler is None and self.access.clients is not None

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
