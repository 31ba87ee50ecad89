"""Until when a worker may use its devices: what its supervisor last said, and what follows when it says nothing more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from shardd import ipc
from shardd.clock import Deadlines, boot_now
from shardd.logs import get_logger
from shardd.worker.last_moment import LastMoment

log = get_logger(__name__)

SECOND_LOOK: Final = 0.2
"""Seconds after which a lease that is over still has to be: a newer message may wait behind one that was read late. A supervisor
that runs has told the worker to end by then, and knows why it ends."""


class WorkerLease:
    """The lease of the worker's shard; before the first message about it there is no deadline."""

    def __init__(self, over: Callable[[], None]) -> None:
        """`over`: called once, soon after a soft deadline that was not put off."""
        self._over = over
        self._deadlines = Deadlines(math.inf, math.inf)
        self._late = False
        """It was over at the last look."""
        self._reported = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_moment: LastMoment | None = None
        try:
            self._last_moment = LastMoment()
        except OSError as error:
            log.warning("the kernel will not end this worker when its lease is over", action="lease", error=str(error))

    def set(self, message: ipc.Lease) -> None:
        """The lease lasts until then."""
        self._deadlines, self._late = Deadlines(message.soft, message.hard), False
        # One that has passed was read by a worker that had no other before, hence has no client.
        if self._last_moment is not None and self.may_pass():
            self._last_moment.set(message.hard)
        self._look_in(max(SECOND_LOOK, message.soft - boot_now()))

    def may_start(self) -> bool:
        """Whether a message may still be handed over."""
        return boot_now() < self._deadlines.soft

    def may_pass(self) -> bool:
        """Whether bytes of a client may still leave or arrive."""
        return boot_now() < self._deadlines.hard

    def left_to_finish(self) -> float:
        """See `Deadlines`."""
        return self._deadlines.left_to_finish()

    def check(self) -> None:
        """See whether it is over; also to be called now and then, because timers of the loop stand still during a suspend."""
        if self.may_start() or self._reported:
            self._late = False
        elif not self._late:
            # Only the timer looks again: when the loop did nothing for long, several looks come before it reads.
            self._late = True
            self._look_in(SECOND_LOOK)

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        if self._late and not self.may_start():
            self._late, self._reported = False, True
            self._over()
            return
        self.check()
        if self.may_start():
            # The loop may call slightly early.
            self._look_in(max(SECOND_LOOK, self._deadlines.soft - boot_now()))
