"""The events that a client still has for us when it is closed.

The library confirms a message to WhatsApp as soon as it has queued its event (goneonize/main.go: `eventChan`, 100 per
client), and forgets the queue when it is stopped. One more message may be between its decryption and the queue: if its event
is lost, it is lost, too, although WhatsApp sends it again, because its key is used up (whatsmeow, message.go: `ErrOldCounter`
is ignored and confirmed). What the library has received and not begun to decrypt (client.go: `handlerQueueLoop`, which ends
with the connection) is not confirmed and comes again.

So a client is closed in this order: the connection ends; then no event comes for a moment, since none is left; then the
library stops. The library does not say what it has in hand, hence a moment: a message whose decryption takes longer, because
the session store does not answer, may be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

QUIET: Final = 0.25
"""Seconds without an event after which none is left. Decrypting one message takes some milliseconds."""
IDLE: Final = 5.0
"""A client that has had no event, and whose server was not heard, for so many seconds has none left."""
TIMEOUT: Final = 10.0
"""Seconds for all of them: 100 on a disk that takes a tenth of a second for each."""


class Callbacks:
    """The library's calls of one client, for one event after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._running = False
        self._last_end = float("-inf")

    @contextmanager
    def running(self) -> Iterator[None]:
        """During a call."""
        self._running = True
        try:
            yield
        finally:
            self._last_end = time.monotonic()
            self._running = False

    async def drain(self, silent_for: float) -> bool:
        """Wait until no event is left, once the connection has ended; False: that took too long.

        `silent_for`: seconds since the server was last heard.
        """
        start = time.monotonic()
        if silent_for > IDLE and not self._running and self._last_end < start - IDLE:
            return True
        while (now := time.monotonic()) < start + TIMEOUT:
            quiet = 0.0 if self._running else now - max(start, self._last_end)
            if quiet >= QUIET:
                return True
            await asyncio.sleep(QUIET - quiet)
        return False
