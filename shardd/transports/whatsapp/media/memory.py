"""Fetched files, and how many bytes of them a worker holds at once.

Every file is held from its first byte until it is uploaded, and there may be as many files as devices. So each takes its
bytes from one budget as they arrive, and waits when the budget is spent: oldest file first, so that no large one starves
behind small ones. Complete files free their bytes eventually. Only if growing files hold all bytes could they wait for each
other for ever: then the oldest may exceed the budget.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from shardd.errors import DeviceUnavailableError, ErrorClass

PATIENCE: Final = 30.0
"""Seconds that a file waits for memory before its job goes back to the queue, without counting an attempt."""
RETRY: Final = 5.0
"""Seconds before that job is tried again."""


class MediaMemory:
    """One worker's budget. At most one file exceeds it, by at most the size limit of a file."""

    def __init__(self, budget: int, *, patience: float = PATIENCE) -> None:
        """`budget`: bytes of files."""
        self._budget = budget
        self._patience = patience
        self._growing: dict[Share, None] = {}  # the oldest first
        self._waiting: dict[Share, tuple[int, asyncio.Future[None]]] = {}
        self.held = 0
        """Bytes of all files."""

    def begin(self, patience: float | None = None) -> Share:
        """A new, empty share, which the caller must release. `patience`: seconds of each wait, if not those of the memory."""
        share = Share(self, self._patience if patience is None else patience)
        self._growing[share] = None
        return share

    # ---- for shares

    async def grow(self, share: Share, more: int) -> None:
        """Add to a share, now or when there is memory. Raises DeviceUnavailableError when that takes too long."""
        if not self._waiting and self._fits(share, more):
            self._take(share, more)
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting[share] = (more, granted)
        self._grant()
        try:
            async with asyncio.timeout(share.patience):
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
        """A share is complete."""
        self._growing.pop(share, None)
        self._grant()

    def release(self, share: Share) -> None:
        """Free a share."""
        self.held -= share.size
        share.size = 0
        self.finish(share)

    # ---- inside

    def _grant(self) -> None:
        """Let shares grow, the oldest first, while there is memory."""
        for share in [share for share in self._growing if share in self._waiting]:
            more, granted = self._waiting[share]
            if granted.cancelled():
                continue  # its task is about to leave
            if not self._fits(share, more):
                return
            del self._waiting[share]
            self._take(share, more)
            granted.set_result(None)

    def _fits(self, share: Share, more: int) -> bool:
        if self.held + more <= self._budget:
            return True
        # Bytes of complete files are freed without our help, so it is worth waiting for them.
        return share is next(iter(self._growing)) and self.held == sum(other.size for other in self._growing)

    def _take(self, share: Share, more: int) -> None:
        share.size += more
        self.held += more


class Share:
    """The bytes of one file."""

    def __init__(self, memory: MediaMemory, patience: float) -> None:
        self._memory = memory
        self.patience = patience
        self.size = 0

    async def hold(self, size: int) -> None:
        """Grow to `size` bytes; waits for memory. Raises DeviceUnavailableError."""
        if size > self.size:
            await self._memory.grow(self, size - self.size)

    def finish(self) -> None:
        """It is complete."""
        self._memory.finish(self)

    def release(self) -> None:
        """Free it. Idempotent."""
        self._memory.release(self)


@dataclass(slots=True)
class Media:
    """What was fetched. `mime_type`, `charset`, `file_name`: as the source names them, the last one made safe.

    `url`: of the server that had it, after all redirects.
    """

    data: bytes
    mime_type: str | None = None
    file_name: str | None = None
    charset: str | None = None
    url: str = ""
    share: Share | None = field(default=None, compare=False, repr=False)

    def release(self) -> None:
        """Free the bytes. Idempotent."""
        self.data = b""
        if self.share is not None:
            self.share.release()
