"""The webhooks of this node: one endpoint each, as the config says, none of which can hold up another or anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shardd.config import WebhookConfig
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.webhooks import WebhookStore
from shardd.supervisor.notifications import NotificationListener
from shardd.supervisor.outbox.endpoint import Endpoint
from shardd.supervisor.services import Service, Step
from shardd.supervisor.status import WebhookStatus
from shardd.tasks import WakeUp, end_tasks

log = get_logger(__name__)

REVIVE_AFTER: Final = 60.0
"""Seconds until a webhook begins anew that a defect has ended."""
SPACING: Final = 0.05
"""Seconds between looks at the outbox, however many events are announced."""
IDLE: Final = 60.0
"""Seconds for which a wait for announcements lasts; the webhooks look at the outbox by themselves meanwhile."""


@dataclass(slots=True)
class _Running:
    config: WebhookConfig
    endpoint: Endpoint
    task: asyncio.Task[None]


class Webhooks(Service):
    """Starts and ends endpoints."""

    def __init__(
        self, database: Database, store: WebhookStore, configs: Mapping[str, WebhookConfig], listening: Step
    ) -> None:
        """`listening`: how hearing of events goes."""
        self._store = store
        self._configs = dict(configs)
        self._running: dict[str, _Running] = {}
        self._listener = NotificationListener(
            database, "shardd_events", "shardd_webhooks", heard=self._heard, step=listening
        )
        self._listening: list[asyncio.Task[None]] = []
        self._wake = WakeUp(SPACING)
        self._news = False
        self._asked: set[str] = set()
        self._changed = asyncio.Event()

    def configure(self, configs: Mapping[str, WebhookConfig]) -> None:
        """The config was reloaded."""
        self._configs = dict(configs)
        self._changed.set()

    def troubles(self) -> list[str]:
        """What is wrong, one sentence for each webhook of this node that fails."""
        found = [running.endpoint.trouble() for running in self._running.values()]
        return [*(trouble for trouble in found if trouble is not None), *self._listener.notes()]

    def statuses(self) -> list[WebhookStatus]:
        """Of those that this node delivers for, by name."""
        found = (running.endpoint.status() for _, running in sorted(self._running.items()))
        return [status for status in found if status is not None]

    async def serve(self) -> None:
        """Keep to the config until cancelled; then `close`."""
        while True:
            self._changed.clear()
            for name, running in list(self._running.items()):
                if self._configs.get(name) != running.config:
                    await self._end(name)
            for name, config in self._configs.items():
                if name not in self._running:
                    endpoint = Endpoint(name, config, self._store)
                    self._running[name] = _Running(config, endpoint, asyncio.create_task(_keep_running(endpoint)))
            if self._running and not self._listening:
                self._listening = [asyncio.create_task(self._listener.run()), asyncio.create_task(self._spread())]
            await self._changed.wait()

    async def close(self) -> None:
        """Cut what is being posted, and note how far each is; after `run` has ended."""
        if self._listening:
            await end_tasks(self._listening)
        await asyncio.gather(*(self._end(name) for name in list(self._running)))

    async def _end(self, name: str) -> None:
        running = self._running[name]
        await end_tasks([running.task])
        await running.endpoint.close()
        del self._running[name]

    def _heard(self, text: str) -> None:
        if not text:
            self._news = True
        elif text in self._running:  # only an operator's wish has a text
            self._asked.add(text)
        else:
            return
        self._wake.set()

    async def _spread(self) -> None:
        """Tell the endpoints what was heard."""
        while True:
            if await self._wake.wait(IDLE):
                asked, news = self._asked, self._news
                self._asked, self._news = set(), False
                for name, running in self._running.items():
                    if name in asked:
                        running.endpoint.asked()
                    if news:
                        running.endpoint.wake()


async def _keep_running(endpoint: Endpoint) -> None:
    while True:
        try:
            await endpoint.run()
        except Exception as error:
            # A defect in telling others must not stop the sending.
            log.critical("a webhook failed", action="defect", webhook=endpoint.name, exc_info=error)
            await endpoint.close()
            await asyncio.sleep(REVIVE_AFTER)
