"""Keeps the outbox bounded, configures whether the triggers write events, and finds the transaction that holds events back.

An event is shown once every transaction that began to write before it has ended, in whatever database of the server; otherwise a
reader could pass over one. So a forgotten transaction stops all readers and webhooks. Transactions that only read, and
replication slots, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from shardd.config import EventsConfig
from shardd.logs import get_logger
from shardd.queue.events import Events, HeldEvents
from shardd.queue.webhooks import WebhookAdmin
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

PURGE_EVERY: Final = 10.0
"""Seconds between purges."""
CHUNK: Final = 5000
"""Events that one statement deletes: some 50 ms of the database's time."""
FORGET_AFTER: Final = 24 * 3600.0
"""Seconds for which a webhook that no node delivers for is remembered at least, however short events are kept."""
CHECK_EVERY: Final = 5.0
"""Seconds between checks for held events: one probe of the outbox, and a list of sessions only when something waits."""
HELD: Final = 15.0
"""Seconds for which an event may wait before that is a problem: a large import takes seconds."""


class EventUpkeep:
    """The periodic steps, and what they found."""

    def __init__(self, events: Events, webhooks: WebhookAdmin, config: Callable[[], EventsConfig]) -> None:
        """`config`: the current one."""
        self._events = events
        self._webhooks = webhooks
        self._config = config
        self._held: HeldEvents | None = None

    async def purge(self) -> None:
        """Delete old events and forgotten webhooks. Raises DatabaseError."""
        config = self._config()
        await self._events.configure(config.keep)
        if restored := await self._events.reposition_restored():
            log.warning("this database was restored: its events are read again", action="events", events=restored)
        while await self._events.purge(config.keep, config.most, CHUNK) == CHUNK:
            pass
        for name in await self._webhooks.forget(max(config.keep, FORGET_AFTER)):
            log.info("webhook forgotten", action="webhook", webhook=name)

    async def check(self) -> None:
        """See whether events are held back. Raises DatabaseError."""
        self._held = await self._events.held(HELD)

    def problems(self) -> Iterator[Problem]:
        """The transaction that holds events back, if one does."""
        if self._held is not None:
            yield Problem(ProblemKind.EVENTS, describe_held(self._held))


def describe_held(held: HeldEvents) -> str:
    """In a sentence, with the fix."""
    text = f"no event of the last {held.waiting:.0f} s can be read or goes to a webhook: "
    if held.prepared is not None:
        return text + (
            f"the prepared transaction {held.prepared!r} of user {held.user} in database {held.database} has been open for "
            f"{held.age or 0.0:.0f} s: end it there with COMMIT PREPARED or ROLLBACK PREPARED"
        )
    if held.pid is None:
        return text + (
            "they wait for a transaction that was not found among the sessions (pg_stat_activity) and prepared transactions "
            "(pg_prepared_xacts) that this login sees"
        )
    since = "has been open for a time that is hidden (GRANT pg_read_all_stats to the login of shardd)"
    if held.age is not None:
        since = f"has been open for {held.age:.0f} s"
    parts = [f"pid {held.pid}", f"user {held.user}", f"application {held.application!r}", held.address, held.state]
    who = ", ".join(part for part in parts if part)
    return text + (
        f"a transaction in database {held.database} {since} ({who}): end it, if need be with SELECT "
        f"pg_terminate_backend({held.pid})"
    )
