"""How many bytes of media a worker holds at once.

Every file is held from its first byte until it is uploaded, and there may be as many as there are devices. So each takes its
bytes from one budget as they come, and waits when the budget is spent: in the order in which the files were begun, so that no
large one starves behind small ones. Files that are whole give their bytes back in the end whatever happens to others. Only if
all bytes are held by files that still grow could each wait for the next: then the oldest may pass the budget.
"""

from __future__ import annotations

import asyncio
from typing import Final

from shardd.errors import DeviceUnavailableError, ErrorClass

PATIENCE: Final = 30.0
"""Seconds that a file waits for room; then its job goes back to the queue, which is no failure of its own."""
RETRY: Final = 5.0
"""Seconds before it is tried again."""


class MediaMemory:
    """One worker's budget. It is passed by at most one file, of at most the largest size that a file may have."""

    def __init__(self, budget: int, *, patience: float = PATIENCE) -> None:
        """`budget`: bytes of files."""
        self._budget = budget
        self._patience = patience
        self._growing: dict[Share, None] = {}  # the oldest first
        self._waiting: dict[Share, tuple[int, asyncio.Future[None]]] = {}
        self.held = 0
        """Bytes of all files."""

    def begin(self) -> Share:
        """A new file, of no size yet. Whoever asks for it must release it."""
        share = Share(self)
        self._growing[share] = None
        return share

    # ---- what shares ask for

    async def grow(self, share: Share, more: int) -> None:
        """Add to a share, now or when there is room. Raises DeviceUnavailableError when that takes too long."""
        if not self._waiting and self._fits(share, more):
            self._take(share, more)
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting[share] = (more, granted)
        self.look()
        try:
            async with asyncio.timeout(self._patience):
                await granted
        except TimeoutError:
            raise DeviceUnavailableError(
                f"this worker holds as many bytes of media as media_memory allows ({self._budget})",
                retry_after=RETRY,
                error_class=ErrorClass.WORKER,
            ) from None
        finally:
            self._waiting.pop(share, None)

    def finish(self, share: Share) -> None:
        """A share grows no more."""
        self._growing.pop(share, None)
        self.look()

    def release(self, share: Share) -> None:
        """A share is not needed any more."""
        self.held -= share.size
        share.size = 0
        self.finish(share)

    def look(self) -> None:
        """Let those grow that may, the oldest first."""
        for share in [share for share in self._growing if share in self._waiting]:
            more, granted = self._waiting[share]
            if granted.cancelled():
                continue  # it is about to leave
            if not self._fits(share, more):
                return
            del self._waiting[share]
            self._take(share, more)
            granted.set_result(None)

    # ---- inside

    def _fits(self, share: Share, more: int) -> bool:
        if self.held + more <= self._budget:
            return True
        # Bytes of whole files come back by themselves, so it is worth waiting for them.
        return share is next(iter(self._growing)) and self.held == sum(other.size for other in self._growing)

    def _take(self, share: Share, more: int) -> None:
        share.size += more
        self.held += more


class Share:
    """The bytes of one file."""

    def __init__(self, memory: MediaMemory) -> None:
        self._memory = memory
        self.size = 0

    async def hold(self, size: int) -> None:
        """Have room for `size` bytes in all; waits until there is. Raises DeviceUnavailableError."""
        if size > self.size:
            await self._memory.grow(self, size - self.size)

    def finish(self) -> None:
        """It will not grow any more."""
        self._memory.finish(self)

    def release(self) -> None:
        """Give everything back; may be called often."""
        self._memory.release(self)
