"""Visits, and what follows every login: hear what waited for the device, show its presence if that is due, and report.

A visit opens a device's client for a moment. It gives way to sends: it logs in after them and takes no room that one waits
for or whose client is still of use (unless it would become late), and it does not keep a client open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from shardd.errors import DeviceUnavailableError
from shardd.logs import get_logger
from shardd.tasks import TaskSet
from shardd.transports.base import Events
from shardd.transports.whatsapp.clients.client import Client
from shardd.transports.whatsapp.clients.closing import Purpose
from shardd.transports.whatsapp.clients.presence import show_presence
from shardd.transports.whatsapp.clients.slot import ClientSlot

if TYPE_CHECKING:
    from shardd.config.transports.whatsapp import WhatsappConfig

log = get_logger(__name__)

BUSY_RETRY: Final = 1.0
"""Retry after, in seconds, for a device that this worker had no room for: it has no error, so the wait does not grow."""
PRESENCE_SHARE: Final = 0.7
"""Of `visit_every`: a login shows the presence if the last one is longer ago. The supervisor requests a visit later than that."""
AT_ONCE: Final = 4
"""Visits at the same time, at most."""
GAVE_WAY: Final = "the visit gave way to a message, because all clients of this worker are in use"
CUT_SHORT: Final = "no presence was shown, because the client was closed before it had heard all that waited"


class Visits:
    """Of one worker."""

    def __init__(self, settings: WhatsappConfig, events: Events, over: Callable[[], None]) -> None:
        """`over`: called when a client that only a visit uses may be closed."""
        self.turn = asyncio.Semaphore(max(1, min(AT_ONCE, settings.max_connecting // 2)))
        """A visit holds one; it waits for that without its device's lock, so that its device's sends do not wait, too."""
        self._settings = settings
        self._events = events
        self._over = over
        self._opening: dict[asyncio.Task[Client], Purpose] = {}
        self._attending = TaskSet()

    @property
    def purpose(self) -> Purpose:
        """What the running task opens a client for."""
        task: Any = asyncio.current_task()
        return self._opening.get(task, Purpose.SEND)

    async def open(self, refresh: Coroutine[Any, Any, Client], *, late: bool) -> Client:
        """The client of `refresh`, which gives way to sends. Raises DeviceUnavailableError."""
        opening = asyncio.create_task(refresh)
        self._opening[opening] = Purpose.LATE_VISIT if late else Purpose.VISIT
        try:
            await asyncio.wait([opening])
        finally:
            del self._opening[opening]
            opening.cancel()
        if opening.cancelled():
            raise self.gave_way()
        return opening.result()

    def give_way(self) -> None:
        """A send needs room: end the visits that open a client."""
        for opening in self._opening:
            opening.cancel()

    @staticmethod
    def gave_way() -> DeviceUnavailableError:
        """What a visit without room fails with."""
        return DeviceUnavailableError(GAVE_WAY, retry_after=BUSY_RETRY)

    def attend(self, slot: ClientSlot, client: Client) -> None:
        """After a login, or at a visit: hear what waited, show the presence if that is due, and report."""
        if slot.attended is not client:

            def failed(error: Exception) -> None:
                log.error("visit failed", action="visit", device=slot.device_id, exc_info=error)
                note = f"unexpected: {type(error).__name__}: {error}"
                self._events.visited(slot.device_id, online=False, note=note)

            slot.attended = client
            if client.alive and slot.visited_since is None and self.purpose is Purpose.SEND:
                # It is online, whatever it hears and however long that takes. A visit that fails later was none.
                self._events.visited(slot.device_id, online=True)
            self._attending.start(self._hear(slot, client), failed)

    async def end(self) -> None:
        """Hear no more."""
        await self._attending.end()

    async def _hear(self, slot: ClientSlot, client: Client) -> None:
        try:
            await client.heard_all()
            await client.explained()
            if client.alive:
                note, shown = None, self._presence_is_due(slot)
                if shown and (note := await show_presence(client, self._settings.answer_timeout)) is None:
                    slot.presence_at = asyncio.get_running_loop().time()
                self._events.visited(slot.device_id, online=True, presence=shown and note is None, note=note)
            else:
                self._report_end(slot, client)
        finally:
            if slot.attended is client:
                slot.attended = None
                if slot.visited_since is not None:
                    # Without a send since, it is closed as if the visit had not been.
                    slot.used_at, slot.visited_since = slot.visited_since, None
                    self._over()

    def _report_end(self, slot: ClientSlot, client: Client) -> None:
        """Report a client that ended before it had heard all that waited. One that was opened for a send was online."""
        if client.failure is not None:
            self._events.visited(slot.device_id, online=False, note=client.failure.text)
        elif slot.attended is client and slot.visited_since is not None:
            self._events.visited(slot.device_id, online=False, note=GAVE_WAY)
        else:
            self._events.visited(slot.device_id, online=True, note=CUT_SHORT)

    def _presence_is_due(self, slot: ClientSlot) -> bool:
        every, now = self._settings.visit_every, asyncio.get_running_loop().time()
        return bool(every) and (slot.presence_at is None or now >= slot.presence_at + every * PRESENCE_SHARE)
