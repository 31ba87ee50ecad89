"""Whether somebody uses up what all sessions of the server share: connections, the table of locks, the queue of notifications.

Any login can, in any database of the server, and then nobody may get in any more to ask who it was. So the daemon keeps a
connection for this alone, and knows names beforehand; what it saw last stays in the status while it cannot look.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shardd.queue.database import NOTIFICATIONS_FULL
from shardd.queue.server_limits import LockUse, Names, ServerLimits, SessionOids
from shardd.supervisor.problems import Problem, ProblemKind

EVERY: Final = 3.0
"""Seconds between looks, at least."""
LOCKS_FULL: Final = 0.5
"""Of the table of locks: a large dump or migration takes less."""
CONNECTIONS_FULL: Final = 0.9
_NAMES_EVERY: Final = 60.0
"""Seconds after which the names of roles and databases are read again."""
_STALE: Final = 15.0
"""Seconds after which a problem says how old it is."""
_ROLES: Final = 5
"""Roles that are named."""


@dataclass(frozen=True, slots=True)
class Session:
    """Whose a process of the server is."""

    user: str
    database: str


@dataclass(frozen=True, slots=True)
class ConnectionUse:
    """Connections of the whole server."""

    room: int
    """That users without special rights may have in all."""
    by_role: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NotificationUse:
    """A queue of notifications that is more than half full."""

    share: float
    keeper: int | None
    """Process id of the session that keeps it so; None: not known."""


class ServerWatch:
    """Looks, and reports what is nearly used up."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._looked_at = 0.0
        self._named_at = float("-inf")
        self._names: Names = {}
        self._sessions: dict[int, Session] = {}
        self._locks: LockUse | None = None
        self._connections: ConnectionUse | None = None
        self._notifications: NotificationUse | None = None

    async def look(self) -> None:
        """Look now. Raises DatabaseError; what was not seen then stands as it was."""
        # In this order: what needs the fewest locks comes first.
        self._locks = await self._limits.locks(LOCKS_FULL)
        self._looked_at = time.monotonic()
        await self._look_at_sessions()
        share = await self._limits.notifications()
        self._notifications = None if share < NOTIFICATIONS_FULL else NotificationUse(share, await self._keeper())
        if time.monotonic() - self._named_at > _NAMES_EVERY:
            await self._read_names()

    async def _look_at_sessions(self) -> None:
        sessions = await self._limits.sessions()
        if self._locks is None and any(("role", one.role) not in self._names for one in sessions):
            await self._read_names()
        self._sessions = {one.pid: self._named(one) for one in sessions}
        room = await self._limits.connection_room()
        full = len(sessions) >= CONNECTIONS_FULL * room
        by_role = Counter(session.user for session in self._sessions.values())
        self._connections = ConnectionUse(room, by_role) if full else None

    async def _read_names(self) -> None:
        self._names = await self._limits.names()
        self._named_at = time.monotonic()

    def _named(self, one: SessionOids) -> Session:
        return Session(
            self._names.get(("role", one.role), f"(oid {one.role})"),
            self._names.get(("database", one.database), f"(oid {one.database})"),
        )

    async def _keeper(self) -> int | None:
        """Who keeps notifications in the queue: the server tells it seldom, so what it told before counts, too."""
        before = None if self._notifications is None else self._notifications.keeper
        told = await self._limits.slowest_listener()
        return told or (before if before in self._sessions else None)

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        age = time.monotonic() - self._looked_at
        seen = f" (as of {age:.0f} s ago: the database has not answered since)" if age > _STALE else ""
        if self._locks is not None:
            yield Problem(ProblemKind.SERVER, describe_locks(self._locks, self._sessions) + seen)
        if self._connections is not None:
            yield Problem(ProblemKind.SERVER, describe_connections(self._connections) + seen)
        if self._notifications is not None:
            yield Problem(ProblemKind.SERVER, describe_notifications(self._notifications, self._sessions) + seen)


def describe_locks(use: LockUse, sessions: Mapping[int, Session]) -> str:
    """In a sentence, with the fix."""
    told = f"the server's table of locks holds {use.locks:,}, with room for about {use.room:,}; once it is full, nobody gets in: "
    if use.pid is None:
        return f"{told}{use.held:,} belong to prepared transactions (pg_prepared_xacts): end them"
    return f"{told}{use.held:,} belong to {_who(use.pid, sessions)}: end it ({_how_to_end(use.pid)})"


def describe_connections(use: ConnectionUse) -> str:
    """In a sentence, with the fix."""
    roles = sorted(use.by_role.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{count:,} of user {role}" for role, count in roles[:_ROLES])
    rest = sum(count for _, count in roles[_ROLES:])
    others = f", {rest:,} of others" if rest else ""
    return (
        f"{sum(use.by_role.values()):,} connections to the server are open, and {use.room:,} is the most for ordinary users: "
        f"{named}{others}. Limit programs that hold too many (ALTER ROLE … CONNECTION LIMIT), or raise max_connections"
    )


def describe_notifications(use: NotificationUse, sessions: Mapping[int, Session]) -> str:
    """In a sentence, with the fix."""
    told = (
        f"the server's queue of notifications is {use.share:.0%} full, so shardd sends none and polls instead; other programs "
        "that notify fail once it is full: "
    )
    if use.keeper is None:
        return (
            f"{told}a session that listens has had a transaction open for long; the server has not said yet which (a superuser "
            "finds those that are open in pg_stat_activity, by xact_start)"
        )
    return f"{told}{_who(use.keeper, sessions)} listens, and does not end its transaction: end it ({_how_to_end(use.keeper)})"


def _who(pid: int, sessions: Mapping[int, Session]) -> str:
    session = sessions.get(pid)
    whose = "" if session is None else f" of user {session.user} in database {session.database}"
    return f"the session with pid {pid}{whose}"


def _how_to_end(pid: int) -> str:
    return f"SELECT pg_terminate_backend({pid}), or on the server's host: kill {pid}"
