"""The server's shared resources, which any session could use up: statements of `sql/server.sql` as typed calls."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg.errors import Diagnostic

from shardd.errors import DatabaseError
from shardd.queue.database import Database

Names = dict[tuple[str, int], str]
"""Of roles and databases, by kind (role, database) and oid."""


@dataclass(frozen=True, slots=True)
class LockUse:
    """The table of locks of the whole server, and who holds the most of them."""

    room: int
    """Locks that fit in at least."""
    locks: int
    pid: int | None
    """None: prepared transactions."""
    held: int
    """Of the locks, by this session."""


@dataclass(frozen=True, slots=True)
class SessionOids:
    """A session of the server."""

    pid: int
    role: int
    database: int


class ServerLimits:
    """Questions about the server, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def locks(self, share: float) -> LockUse | None:
        """How full the table of locks is, if more than this share of it is taken. Works when it is full, too."""
        rows = await self._database.fetch_all("lock_use", {"share": share})
        return LockUse(*rows[0]) if rows else None

    async def sessions(self) -> list[SessionOids]:
        """Every session. Works when the table of locks is full, if the connection did it before."""
        return [SessionOids(*row) for row in await self._database.fetch_all("list_sessions")]

    async def names(self) -> Names:
        """The names of all roles and databases."""
        return {(kind, oid): name for kind, oid, name in await self._database.fetch_all("list_names")}

    async def connection_room(self) -> int:
        """How many connections users without special rights may have in all."""
        return int((await self._database.fetch_all("connection_room"))[0][0])

    async def notifications(self) -> float:
        """How full the queue of notifications is: 0 to 1."""
        return float((await self._database.fetch_all("notification_use"))[0][0])

    async def slowest_listener(self) -> int | None:
        """Process id of the session that keeps a queue half full of notifications; None: the server does not say it now."""
        found: list[int] = []

        def hear(warning: Diagnostic) -> None:
            # In whatever language it is, the only number is the process id.
            if number := re.search(r"\d+", warning.message_detail or ""):
                found.append(int(number.group()))

        try:
            async with self._database.connection() as connection:
                connection.add_notice_handler(hear)
                try:
                    await connection.execute(self._database.queries["ask_who_keeps_notifications"])
                finally:
                    connection.remove_notice_handler(hear)
        except DatabaseError:
            if not found:  # full: it warns before it refuses
                return None
        return found[-1] if found else None
