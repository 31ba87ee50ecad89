"""The maximum number of connections of a PostgreSQL server, by frequent polling."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from benchlib.watching import watching

LOOK_EVERY: Final = 0.2


class Peak:
    """The maximum so far."""

    def __init__(self) -> None:
        self.connections = 0


@asynccontextmanager
async def watched(superuser_dsn: str) -> AsyncIterator[Peak]:
    """Counts all client connections of the server except its own, until it is left."""
    peak = Peak()
    async with await psycopg.AsyncConnection.connect(superuser_dsn, autocommit=True) as connection:

        async def look() -> None:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND application_name <> 'shardd-bench' AND pid <> pg_backend_pid()"
            )
            row = await cursor.fetchone()
            assert row is not None
            peak.connections = max(peak.connections, row[0])

        async with watching(look, LOOK_EVERY):
            yield peak
