"""Watches the server: its standbys, and what all sessions share and one can use up: connections, locks, the notification queue.

Any login can do that, in any database of the server; then no new session can ask who it was. So the daemon keeps one connection
for this alone and reads names in advance; what it saw last stays in the status while it cannot look.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shardd.queue.database import NOTIFICATIONS_FULL
from shardd.queue.server_limits import LockUse, Names, Replication, ServerLimits, SessionOids
from shardd.supervisor.cluster.replication import describe_hang, describe_loss, describe_replication
from shardd.supervisor.problems import Problem, ProblemKind

EVERY: Final = 3.0
"""Seconds between checks, at least."""
LOCKS_FULL: Final = 0.5
"""Share of the lock table: a large dump or migration takes less."""
CONNECTIONS_FULL: Final = 0.9
_NAMES_EVERY: Final = 60.0
"""Seconds between reads of the names of roles and databases."""
_STALE: Final = 15.0
"""Seconds after which a problem includes its age."""
_ROLES: Final = 5
"""Roles that a problem names."""


@dataclass(frozen=True, slots=True)
class Session:
    """The owner of a session of the server."""

    user: str
    database: str


class ServerWatch:
    """Checks, and reports what is nearly used up."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._checked_at = 0.0
        self._named_at = float("-inf")
        self._names: Names = {}
        self._sessions: dict[int, Session] = {}
        self._locks: LockUse | None = None
        self._connections: str | None = None
        """The problem with them."""
        self._notifications = 0.0
        """Share of the queue that is used."""
        self._keeper: int | None = None
        """Process id of the session that keeps the queue from shrinking, if known."""
        self._replication: Replication | None = None

    async def check(self) -> None:
        """Check now. Raises DatabaseError; then what was not reached stays as last seen."""
        # In this order: what needs the fewest locks comes first.
        self._locks = await self._limits.locks(LOCKS_FULL)
        self._checked_at = time.monotonic()
        await self._check_sessions()
        self._replication = await self._limits.replication()
        self._notifications = await self._limits.notifications()
        if self._notifications < NOTIFICATIONS_FULL:
            self._keeper = None
        else:
            # The server names it seldom, so the last answer is kept.
            known = self._keeper if self._keeper in self._sessions else None
            self._keeper = await self._limits.slowest_listener() or known
        if time.monotonic() - self._named_at > _NAMES_EVERY:
            await self._read_names()

    async def _check_sessions(self) -> None:
        sessions = await self._limits.sessions()
        if self._locks is None and any(("role", one.role) not in self._names for one in sessions):
            await self._read_names()
        self._sessions = {one.pid: self._named(one) for one in sessions}
        room = await self._limits.connection_room()
        full = len(sessions) >= CONNECTIONS_FULL * room
        by_role = Counter(session.user for session in self._sessions.values())
        self._connections = describe_connections(room, by_role) if full else None

    async def _read_names(self) -> None:
        self._names = await self._limits.names()
        self._named_at = time.monotonic()

    def _named(self, one: SessionOids) -> Session:
        return Session(
            self._names.get(("role", one.role), f"(oid {one.role})"),
            self._names.get(("database", one.database), f"(oid {one.database})"),
        )

    def replication(self) -> str | None:
        """The standbys, in a few words; None: not known yet."""
        return None if self._replication is None else describe_replication(self._replication)

    def notes(self) -> list[str]:
        """What a fail-over could undo."""
        loss = None if self._replication is None else describe_loss(self._replication)
        return [] if loss is None else [loss]

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        age = time.monotonic() - self._checked_at
        seen = f" (as of {age:.0f} s ago: the database has not answered since)" if age > _STALE else ""
        if self._replication is not None and (hang := describe_hang(self._replication)) is not None:
            yield Problem(ProblemKind.DATABASE, hang + seen)
        if self._locks is not None:
            yield Problem(ProblemKind.SERVER, describe_locks(self._locks, self._sessions) + seen)
        if self._connections is not None:
            yield Problem(ProblemKind.SERVER, self._connections + seen)
        if self._notifications >= NOTIFICATIONS_FULL:
            text = describe_notifications(self._notifications, self._keeper, self._sessions)
            yield Problem(ProblemKind.SERVER, text + seen)


def describe_locks(use: LockUse, sessions: Mapping[int, Session]) -> str:
    """In a sentence, with the fix."""
    text = f"the server's lock table holds {use.locks:,}, with room for about {use.room:,}; once full, no session can start: "
    if use.pid is None:
        return f"{text}{use.held:,} belong to prepared transactions (pg_prepared_xacts): end them"
    return f"{text}{use.held:,} belong to {_who(use.pid, sessions)}: end it ({_how_to_end(use.pid)})"


def describe_connections(room: int, by_role: Mapping[str, int]) -> str:
    """In a sentence, with the fix."""
    roles = sorted(by_role.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{count:,} of user {role}" for role, count in roles[:_ROLES])
    rest = sum(count for _, count in roles[_ROLES:])
    others = f", {rest:,} of others" if rest else ""
    return (
        f"{sum(by_role.values()):,} connections to the server are open, and {room:,} is the most for ordinary users: "
        f"{named}{others}. Limit programs that hold too many (ALTER ROLE … CONNECTION LIMIT), or raise max_connections"
    )


def describe_notifications(share: float, keeper: int | None, sessions: Mapping[int, Session]) -> str:
    """In a sentence, with the fix."""
    text = (
        f"the server's notification queue is {share:.0%} full, so shardd sends none and polls instead; other programs "
        "that notify will fail once it is full: "
    )
    if keeper is None:
        return (
            f"{text}a session that listens has had a transaction open for long; the server has not named it yet (a superuser "
            "finds those that are open in pg_stat_activity, by xact_start)"
        )
    return f"{text}{_who(keeper, sessions)} listens and does not end its transaction: end it ({_how_to_end(keeper)})"


def _who(pid: int, sessions: Mapping[int, Session]) -> str:
    session = sessions.get(pid)
    whose = "" if session is None else f" of user {session.user} in database {session.database}"
    return f"the session with pid {pid}{whose}"


def _how_to_end(pid: int) -> str:
    return f"SELECT pg_terminate_backend({pid}), or on the server's host: kill {pid}"
