"""What goes on behind the pairing links that are open in browsers: for each, at most one pairing, and what its page shows.

A pairing ends when nobody has its page open any more: soon while it shows a QR code; later while it shows a code to type, because
who types it on the same phone has WhatsApp in front of the page. One whose phone is linked already always finishes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shardd.errors import DatabaseError, PairingFailure, SharddError
from shardd.logs import get_logger
from shardd.pairing.attempt import Attempt, failure_of
from shardd.pairing.context import SessionContext, SessionSettings
from shardd.queue.database import Database
from shardd.queue.pairing_links import PAIRED, PairingLink, PairingLinks
from shardd.tasks import TaskSet, end_tasks, wait_for_event
from shardd.transports.whatsapp.linking.pairing import TIMEOUT, PairingEvent

log = get_logger(__name__)

MOST: Final = 4
"""Pairings at once on this node: each has a process with the library, 60 to 90 MB."""
SEE_EVERY: Final = 5.0
"""Seconds between looks at whether an open link still works."""
AWAKE: Final = 2.0
"""Seconds between looks at whether a page is still there."""
GONE: Final = 10.0
"""Seconds without its page after which a pairing ends."""
GONE_TO_TYPE: Final = 120.0
"""The same while the page shows a code to type."""
FULL: Final = "full"
"""Why a try could not begin, beside those of `PairingFailure`: there are too many pairings."""
TRIED: Final = "tried"
"""There were too many tries of this link."""


class Kind(StrEnum):
    """What a page shows."""

    READY = "ready"  # the choice between a QR code and a typed one
    STARTING = "starting"
    QR = "qr"
    CODE = "code"
    SCANNED = "scanned"
    PAIRED = "paired"
    FAILED = "failed"
    OVER = "over"  # the link does not work any more


LAST: Final = frozenset({Kind.PAIRED, Kind.OVER})
"""After these, nothing changes."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows now."""

    kind: Kind = Kind.READY
    code: str = ""
    number: str = ""
    failure: str = ""
    """A `PairingFailure`, `FULL` or `TRIED`."""


class OpenLink:
    """One link that a browser has open; the view of its pairing."""

    def __init__(self, link: PairingLink, browser: str, links: PairingLinks) -> None:
        """`browser`: its cookie."""
        self.link = link
        self.shown = Shown()
        self._browser = browser
        self._links = links
        self._changed = asyncio.Event()
        self._pages = 0
        self._left_at = time.monotonic()
        self._attempt: Attempt | None = None
        self._beginning = False
        self._task: asyncio.Task[None] | None = None
        self._tasks = TaskSet()

    @property
    def busy(self) -> bool:
        """Whether a pairing runs, or is about to."""
        return self._beginning or (self._task is not None and not self._task.done())

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return self._pages

    # ---- as the view of an attempt

    def show(self, event: PairingEvent) -> None:
        """See `shardd.pairing.attempt.View`."""
        match event.kind:
            case "qr" | "code" | "scanned" | "paired":
                self._set(Shown(Kind(event.kind), code=event.code or "", number=event.number or ""))
            case "failed":
                self._set(Shown(Kind.FAILED, failure=event.failure))
            case "timeout":
                self._set(Shown(Kind.FAILED, failure=PairingFailure.TIMEOUT))
        if event.kind == PAIRED:
            self._tasks.start(self._note(PAIRED), _defect)  # at once: what follows may take a minute

    def note(self, text: str) -> None:
        """Of no interest to the phone's owner."""

    # ---- as the page

    async def changes(self) -> AsyncIterator[Shown]:
        """What is to be shown: now, whenever it changes, and once in a while."""
        self._pages += 1
        try:
            while True:
                shown, changed = self.shown, self._changed
                yield shown
                if shown.kind in LAST:
                    return
                await wait_for_event(changed, AWAKE)
        finally:
            self._pages -= 1
            self._left_at = time.monotonic()

    async def begin(
        self, opening: AbstractAsyncContextManager[SessionContext], number: str | None, *, room: bool
    ) -> None:
        """Begin a try, in place of one that runs; `number`: by a typed code. `room`: whether there may be one more pairing."""
        if self._beginning or self._is_linked:
            return
        if not self.busy and not room:
            self._set(Shown(Kind.FAILED, failure=FULL))
            return
        self._beginning = True
        try:
            await self._give_up()
            if not await self._links.begin_try(self._browser):
                self._set(Shown(Kind.FAILED, failure=TRIED))
                return
            self._set(Shown(Kind.STARTING))
            self._left_at = time.monotonic()
            self._attempt = Attempt(
                self,
                self.link.device_id,
                number=number,
                new_number=self.link.new_number,
                timeout=max(1.0, min(TIMEOUT, self.link.left)),
            )
            self._task = asyncio.create_task(self._pair(self._attempt, opening))
        finally:
            self._beginning = False

    async def live(self) -> None:
        """Watch over it until nobody has its page open any more."""
        while True:
            await asyncio.sleep(SEE_EVERY)
            if self._is_linked:
                continue
            if not self._pages and time.monotonic() > self._left_at + self._patience:
                return
            if self._pages and self.shown.kind not in LAST:
                try:
                    works = await self._links.see(self._browser)
                except DatabaseError as error:
                    log.warning("a pairing link cannot be looked at", action="pair", error=error)
                    continue
                if not works and not self._is_linked:
                    await self._give_up()
                    self._set(Shown(Kind.OVER))

    async def close(self) -> None:
        """End the pairing."""
        await self._give_up()
        await self._tasks.end()

    async def _pair(self, attempt: Attempt, opening: AbstractAsyncContextManager[SessionContext]) -> None:
        device = self.link.device_id
        try:
            await attempt.run(opening)
        except SharddError as error:
            failure = failure_of(error)
            log.info("a phone was not linked", action="pair", device=device, why=failure)
            await self._note(failure)
        except Exception as error:  # noqa: BLE001  # a defect of ours, which the page must not wait for
            self._set(Shown(Kind.FAILED, failure=PairingFailure.ENDED))
            _defect(error)
        else:
            log.info("a phone was linked", action="pair", device=device)
            await self._note(PAIRED, "; ".join(attempt.remarks) or None)

    async def _note(self, outcome: str, remark: str | None = None) -> None:
        try:
            await self._links.end_try(self._browser, outcome, remark)
        except DatabaseError as error:
            log.warning("what came of a pairing is not in its link", action="pair", error=error)

    async def _give_up(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end_tasks([task])

    def _set(self, shown: Shown) -> None:
        self.shown = shown
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def _is_linked(self) -> bool:
        """Whether the phone is linked, and the pairing goes on."""
        return self._attempt is not None and self._attempt.linked and self.busy

    @property
    def _patience(self) -> float:
        return GONE_TO_TYPE if self.shown.kind is Kind.CODE else GONE


class Linking:
    """All links that are open on this node, by the cookie of their browser."""

    def __init__(self, settings: SessionSettings, database: Database, connect: Callable[[], Database]) -> None:
        """`connect`: makes connections of its own for a pairing, which keeps one for as long as it lasts."""
        self.settings = settings
        self.links = PairingLinks(database)
        self._connect = connect
        self._open: dict[str, OpenLink] = {}
        self._tasks = TaskSet()

    async def of(self, browser: str | None) -> OpenLink | None:
        """The link of the browser with this cookie, if it still works. Raises DatabaseError."""
        if not browser:
            return None
        if (found := self._open.get(browser)) is not None:
            return found
        link = await self.links.opened(browser)
        # Another request may have been quicker.
        return self._open.get(browser) or (None if link is None else self._add(link, browser))

    async def begin(self, one: OpenLink, number: str | None) -> None:
        """Begin a try. Raises DatabaseError."""
        room = sum(other.busy for other in self._open.values()) < MOST
        await one.begin(self._context(), number, room=room)

    async def close(self) -> None:
        """End all pairings."""
        await self._tasks.end()

    def _add(self, link: PairingLink, browser: str) -> OpenLink:
        added = self._open[browser] = OpenLink(link, browser, self.links)
        self._tasks.start(self._live(added, browser), _defect)
        return added

    async def _live(self, one: OpenLink, browser: str) -> None:
        try:
            await one.live()
        finally:
            del self._open[browser]
            await one.close()

    @asynccontextmanager
    async def _context(self) -> AsyncGenerator[SessionContext]:
        async with self._connect() as database:
            yield SessionContext(self.settings, database)


def _defect(error: BaseException) -> None:
    log.error("a pairing failed", action="defect", exc_info=error)
