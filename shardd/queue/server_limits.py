"""The server's shared resources, which any session could use up: statements of `sql/server.sql` as typed calls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from psycopg.errors import Diagnostic

from shardd.errors import DatabaseError
from shardd.queue.queries import Record, Statements, first

Names = dict[tuple[str, int], str]
"""Names of roles and databases, by kind (role, database) and oid."""


@dataclass(frozen=True, slots=True)
class LockUse:
    """The lock table of the server, and the session that holds the most locks."""

    room: int
    """Locks that fit into the table at least."""
    locks: int
    pid: int | None
    """None: prepared transactions."""
    held: int
    """The number of locks that this session holds."""


@dataclass(frozen=True, slots=True)
class SessionOids:
    """A session of the server."""

    pid: int
    role: int
    database: int


@dataclass(frozen=True, slots=True)
class Standby:
    """A standby that is connected."""

    name: str
    mode: str | None
    """async, sync, quorum or potential; None: this user may not see it."""
    lag: float
    """For how many seconds its disk has lacked something of the primary's."""


@dataclass(frozen=True, slots=True)
class Replication:
    """How commits reach the standbys."""

    standbys: list[Standby]
    names: str
    """The setting synchronous_standby_names."""
    commit: str
    """The setting synchronous_commit of shardd's sessions."""
    waits: float | None
    """For how many seconds the oldest commit of this user has waited for a standby; None: there is none."""


class ServerLimits(Statements):
    """Questions about the server."""

    async def locks(self, share: float) -> LockUse | None:
        """The use of the lock table, if more than this share of it is taken. Works when it is full, too."""
        return first(await self._database.rows(LockUse, "lock_use", {"share": share}))

    async def sessions(self) -> list[SessionOids]:
        """Every session. Works when the table of locks is full, if the connection did it before."""
        return await self._database.rows(SessionOids, "list_sessions")

    async def names(self) -> Names:
        """The names of all roles and databases."""
        return {(row["kind"], row["oid"]): row["name"] for row in await self._database.rows(Record, "list_names")}

    async def connection_room(self) -> int:
        """How many connections users without special rights may have in all."""
        return int(await self._database.value("connection_room"))

    async def notifications(self) -> float:
        """How full the notification queue is: 0 to 1."""
        return float(await self._database.value("notification_use"))

    async def replication(self) -> Replication:
        """How commits reach the standbys."""
        standbys = await self._database.rows(Standby, "list_standbys")

        def replication(**settings: Any) -> Replication:
            return Replication(standbys, **settings)

        (found,) = await self._database.rows(replication, "replication_settings")
        return found

    async def slowest_listener(self) -> int | None:
        """Process id of the session that keeps the notification queue half full; None: the server does not report it now."""
        found: list[int] = []

        def hear(warning: Diagnostic) -> None:
            # In every language, the only number is the process id.
            if number := re.search(r"\d+", warning.message_detail or ""):
                found.append(int(number.group()))

        try:
            async with self._database.connection() as connection:
                connection.add_notice_handler(hear)
                try:
                    await connection.execute(self._database.queries["probe_notification_queue"])
                finally:
                    connection.remove_notice_handler(hear)
        except DatabaseError:
            if not found:  # full: it warns before it refuses
                return None
        return found[-1] if found else None
