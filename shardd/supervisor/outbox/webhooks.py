"""The webhooks of this node: one endpoint for each in the config, none of which can block another or anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from shardd.config import WebhookConfig
from shardd.queue.database import Database
from shardd.queue.webhooks import WebhookStore
from shardd.supervisor.notifications import NotificationListener
from shardd.supervisor.outbox.endpoint import Endpoint
from shardd.supervisor.services import Service, Step
from shardd.supervisor.status import WebhookStatus
from shardd.tasks import TaskSet, WakeUp

SPACING: Final = 0.05
"""Seconds between polls of the outbox, however many events are announced."""
IDLE: Final = 60.0
"""Seconds for which one wait for announcements lasts; meanwhile the endpoints poll the outbox."""


class Webhooks(Service):
    """Starts and stops endpoints."""

    def __init__(
        self, database: Database, store: WebhookStore, configs: Mapping[str, WebhookConfig], listening: Step
    ) -> None:
        """`listening`: the step of hearing announcements."""
        self._store = store
        self._configs = dict(configs)
        self._endpoints: dict[str, Endpoint] = {}
        self._listener = NotificationListener(
            database, "shardd_events", "shardd_webhooks", heard=self._heard, step=listening
        )
        self._listening = False
        self._tasks = TaskSet()
        self._wake = WakeUp(SPACING)
        self._new_events = False
        self._asked: set[str] = set()
        self._changed = asyncio.Event()
        self._defect: Exception | None = None
        """What ended an endpoint, or what it needs."""

    def configure(self, configs: Mapping[str, WebhookConfig]) -> None:
        """The config was reloaded."""
        self._configs = dict(configs)
        self._changed.set()

    def notes(self) -> list[str]:
        """One sentence for each webhook of this node that fails."""
        found = [endpoint.note() for endpoint in self._endpoints.values()]
        return [*(note for note in found if note is not None), *self._listener.notes()]

    def statuses(self) -> list[WebhookStatus]:
        """Of those that this node delivers for, by name."""
        found = (endpoint.status() for _, endpoint in sorted(self._endpoints.items()))
        return [status for status in found if status is not None]

    async def serve(self) -> None:
        """Keep one endpoint for each webhook of the config."""
        while True:
            self._changed.clear()
            if self._defect is not None:
                # A webhook that is silently dead would be worse than a restart.
                raise self._defect
            for name, endpoint in list(self._endpoints.items()):
                if self._configs.get(name) != endpoint.config:
                    await self._end(name)
            for name, config in self._configs.items():
                if name not in self._endpoints:
                    self._endpoints[name] = Endpoint(name, config, self._store)
                    self._tasks.start(self._endpoints[name].run(), self._failed)
            if self._endpoints and not self._listening:
                self._listening = True
                self._tasks.start(self._listener.run(), self._failed)
                self._tasks.start(self._spread(), self._failed)
            await self._changed.wait()

    async def close(self) -> None:
        """Cancel what is being posted, and save the progress of each."""
        await asyncio.gather(*(self._end(name) for name in list(self._endpoints)))
        await self._tasks.end()

    async def _end(self, name: str) -> None:
        await self._endpoints[name].stop()
        del self._endpoints[name]

    def _failed(self, error: Exception) -> None:
        self._defect = error
        self._changed.set()

    def _heard(self, text: str) -> None:
        if not text:
            self._new_events = True
        elif text in self._endpoints:  # only an operator's request has a text
            self._asked.add(text)
        else:
            return
        self._wake.set()

    async def _spread(self) -> None:
        """Pass announcements on to the endpoints."""
        while True:
            if await self._wake.wait(IDLE):
                asked, new_events = self._asked, self._new_events
                self._asked, self._new_events = set(), False
                for name, endpoint in self._endpoints.items():
                    if name in asked:
                        endpoint.asked()
                    if new_events:
                        endpoint.wake()
