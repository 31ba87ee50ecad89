"""Whose transaction keeps events from being read.

An event is shown once every transaction that began to write before it has ended, in whatever database of the server: else a
reader could pass over one. So a transaction that somebody forgot stops all readers and webhooks. Transactions that only read, and
replication slots, do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shardd.queue.events import Events, HeldEvents
from shardd.supervisor.problems import Problem, ProblemKind

EVERY: Final = 5.0
"""Seconds between looks: one probe of the outbox, and a list of sessions only when something waits."""
HELD: Final = 15.0
"""Seconds for which an event may wait before that is a problem: a large import takes seconds."""


class HeldEventWatch:
    """One step, repeated by the supervisor's upkeep, and what it found."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._held: HeldEvents | None = None

    async def look(self) -> None:
        """Raises DatabaseError."""
        self._held = await self._events.held(HELD)

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        if self._held is not None:
            yield Problem(ProblemKind.EVENTS, describe(self._held))


def describe(held: HeldEvents) -> str:
    """In a sentence, with the fix."""
    told = f"no event of the last {held.waiting:.0f} s can be read or goes to a webhook: "
    if held.prepared is not None:
        return told + (
            f"the prepared transaction {held.prepared!r} of user {held.user} in database {held.database} has been open for "
            f"{held.age or 0.0:.0f} s: end it there with COMMIT PREPARED or ROLLBACK PREPARED"
        )
    if held.pid is None:
        return told + (
            "they wait for a transaction that was not found among the sessions (pg_stat_activity) and prepared transactions "
            "(pg_prepared_xacts) that this login sees"
        )
    since = "has been open for a time that is hidden (GRANT pg_read_all_stats to the login of shardd)"
    if held.age is not None:
        since = f"has been open for {held.age:.0f} s"
    parts = [f"pid {held.pid}", f"user {held.user}", f"application {held.application!r}", held.address, held.state]
    who = ", ".join(part for part in parts if part)
    return told + (
        f"a transaction in database {held.database} {since} ({who}): end it, if need be with SELECT "
        f"pg_terminate_backend({held.pid})"
    )
