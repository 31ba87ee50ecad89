"""Keeping the outbox bounded, and telling the database's triggers whether events are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardd.config import EventsConfig
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.events import Events
from shardd.queue.webhooks import WebhookAdmin

log = get_logger(__name__)

EVERY: Final = 10.0
"""Seconds between looks."""
CHUNK: Final = 5000
"""Events that are deleted with one statement: some 50 ms of the database's time."""
FORGET_AFTER: Final = 24 * 3600.0
"""Seconds that a webhook which nobody delivers for is remembered at least, however short events are kept."""


class EventUpkeep:
    """One step, repeated by the supervisor's upkeep."""

    def __init__(self, database: Database, config: Callable[[], EventsConfig]) -> None:
        """`config`: as it is now."""
        self._config = config
        self._events = Events(database)
        self._webhooks = WebhookAdmin(database)

    async def step(self) -> None:
        """Raises DatabaseError."""
        config = self._config()
        await self._events.configure(config.keep)
        if mended := await self._events.mend():
            log.warning("this database was restored: its events are read again", action="events", events=mended)
        # What is left of a time with events is no longer of use to anybody.
        while await self._events.purge(config.keep, config.most, CHUNK) == CHUNK:
            pass
        for name in await self._webhooks.forget(max(config.keep, FORGET_AFTER)):
            log.info("webhook forgotten", action="webhook", webhook=name)
