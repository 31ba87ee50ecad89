"""Connections to PostgreSQL for many who ask, of whom none keeps the others waiting, however much and slowly it asks.

Each asks in a lane of its own: a user, a program's token, the address of a stranger, and shardd itself for what all of them look
at. The lanes take turns, and none has all connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

from shardd.dashboard.turns import CrowdedError, Turns
from shardd.errors import DatabaseError
from shardd.postgres.servers import Connection
from shardd.queue.database import Database

OURS: Final = "shardd"
"""The lane of what is asked for all, in tasks that one of them may have begun."""
LANE: Final[ContextVar[str]] = ContextVar("lane", default=OURS)
"""Who asks."""
WAITING: Final = 500
"""Those that wait for a connection, at most."""


class FairDatabase(Database):
    """A Database whose connections are lent in turns."""

    def __init__(self, dsn: str, *, max_size: int, most_of_one: int, kept: int = 0, **settings: Any) -> None:
        """`most_of_one`: connections of one lane at a time; `kept`: those for lanes that have none. `settings`: see `Database`.

        With any kept, nobody may hold a connection while they wait for another.
        """
        super().__init__(dsn, max_size=max_size, **settings)
        self._turns = Turns(max_size, WAITING, most_of_one=most_of_one, kept=kept)

    @asynccontextmanager
    async def connection(self, *, timeout: float | None = None) -> AsyncGenerator[Connection]:
        """See `Database.connection`."""
        async with AsyncExitStack() as lent:
            try:
                async with asyncio.timeout(self.connect_timeout):
                    await lent.enter_async_context(self._turns.turn(LANE.get(), 0))
            except (TimeoutError, CrowdedError) as error:
                waits = (
                    f"other requests of {LANE.get()} wait for it"
                    if LANE.get() != OURS
                    else "other requests wait for it"
                )
                raise self.refusal or DatabaseError(f"{waits}, and there was no connection for this one") from error
            yield await lent.enter_async_context(super().connection(timeout=timeout))
