"""How many clients connect at the same time, and what the supervisor must know to hand over no more jobs than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from shardd.errors import DeviceUnavailableError
from shardd.tasks import Line
from shardd.transports.base import Events
from shardd.transports.whatsapp.clients.visits import BUSY_RETRY
from shardd.transports.whatsapp.clients.window import USUAL, ConnectWindow

AHEAD: Final = 4
"""Jobs of devices without a client that wait here for their turn, so that none is missed while the next ones are claimed."""
VISIT_WAIT: Final = 2.0
"""Seconds that a visit waits for its turn: it keeps a message of its device waiting."""
REPORT_WITHIN: Final = 0.01
"""Seconds for which changes are gathered in one message."""
REPEAT: Final = 1.0
"""Seconds between reports that none may be opened: until one is, jobs are waiting."""


class Turn:
    """Of one device to connect. Times are those of the event loop."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.dialled_at = began
        """Up to then the worker itself is busy with it, or with those before it."""
        self.hangs = False
        """It only waits for the network, and no longer counts against the window."""
        self.expiry: asyncio.TimerHandle | None = None


class Connecting:
    """Limits concurrent connects, so that a restart is not a storm; those that hang block no others."""

    def __init__(self, window: ConnectWindow, timeout: float, changed: Callable[[], None]) -> None:
        """`timeout`: seconds that one may wait for its turn; `changed`: called when more or fewer may begin."""
        self._window = window
        self._timeout = timeout
        self._changed = changed
        self._counted = 0
        self._hanging = 0
        self._sends = Line()
        self._visits = Line()

    @property
    def most(self) -> int:
        """How many may be connecting now, with those that hang."""
        return self._window.size + self._hanging

    @asynccontextmanager
    async def turn(self, device_id: str, *, visit: bool = False) -> AsyncIterator[Turn]:
        """While a device connects; all others go before a `visit`. Raises DeviceUnavailableError if others take too long."""
        loop = asyncio.get_running_loop()
        timeout = min(VISIT_WAIT, self._timeout) if visit else self._timeout
        try:
            async with asyncio.timeout(timeout):
                await self._enter(self._visits if visit else self._sends)
        except TimeoutError:
            text = f"device {device_id} waited {timeout:g} seconds for others to connect"
            raise DeviceUnavailableError(text, retry_after=BUSY_RETRY) from None
        turn = Turn(loop.time())
        try:
            yield turn
        finally:
            if turn.expiry is not None:
                turn.expiry.cancel()
            if turn.hangs:
                self._hanging -= 1
                self._changed()
            else:
                self._leave()

    def dialled(self, turn: Turn) -> None:
        """The device with this turn dials now, or has taken too long for that: other devices may connect."""
        loop = asyncio.get_running_loop()
        turn.dialled_at = loop.time()
        full = self._counted >= self._window.size and self._hanging <= max(self._window.size, USUAL)
        self._window.dialled(turn.dialled_at - turn.began, turn.dialled_at, full=full)
        self._check(turn)
        self._let_in()

    def accepted(self, turn: Turn) -> None:
        """The device with this turn is logged in."""
        self._window.accepted(asyncio.get_running_loop().time() - turn.dialled_at)

    def refused(self, *, unanswered: bool) -> None:
        """A login failed; see `ConnectWindow.refused`."""
        self._window.refused(unanswered=unanswered)
        self._changed()

    async def _enter(self, waiting: Line) -> None:
        if self._counted < self._window.size:
            self._counted += 1
        else:
            await waiting.wait(self._leave)

    def _leave(self) -> None:
        self._counted -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._counted < self._window.size and (self._sends.let_in() or self._visits.let_in()):
            self._counted += 1
        self._changed()

    def _check(self, turn: Turn) -> None:
        """Whether it hangs: what is usual may have changed since it dialled."""
        loop = asyncio.get_running_loop()
        if (end := turn.dialled_at + self._window.patience) > loop.time():
            turn.expiry = loop.call_at(end, self._check, turn)
            return
        turn.hangs = True
        self._hanging += 1
        self._leave()


class ClientReports:
    """Reports to the supervisor which clients are open, and how many others may be opening."""

    def __init__(self, events: Events, openings: Callable[[], int]) -> None:
        """`openings`: how many devices without a client may be given jobs now."""
        self._events = events
        self._openings = openings
        self._changes: dict[str, bool] = {}
        """Whether the client of each device was opened or closed last."""
        self._reported: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def opened(self, device_id: str) -> None:
        """A device has a client."""
        self._changes[device_id] = True
        self.changed()

    def closed(self, device_id: str) -> None:
        """A device has no client any more."""
        self._changes[device_id] = False
        self.changed()

    def changed(self) -> None:
        """More or fewer devices may be given jobs."""
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._timer.when() > loop.time() + REPORT_WITHIN:
            self._timer.cancel()  # of the next repetition
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_later(REPORT_WITHIN, self.report)

    def report(self) -> None:
        """Report now what has changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        openings, changes = self._openings(), self._changes
        if changes or openings != self._reported or not openings:
            self._changes, self._reported = {}, openings
            opened = [device_id for device_id, is_open in changes.items() if is_open]
            self._events.clients_changed(opened, [each for each in changes if not changes[each]], openings)
        if not openings:
            self._timer = asyncio.get_running_loop().call_later(REPEAT, self.report)

    def end(self) -> None:
        """Report nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
