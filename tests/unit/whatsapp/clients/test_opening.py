"""An opening client and the library's lock."""

from __future__ import annotations

import asyncio

import pytest

from shardd.tasks import do_nothing
from shardd.transports.whatsapp.clients.client import Client
from shardd.transports.whatsapp.clients.library import LibraryLock


class Opening(Client):
    """A client as far as its connect holds the lock; the library writes until a test lets it end."""

    def __init__(self, lock: LibraryLock) -> None:  # no client of the library
        self._library_lock = lock
        self.written = asyncio.Event()

    async def _dial(self) -> asyncio.Task[None]:
        await self.written.wait()
        return asyncio.create_task(do_nothing())


async def test_a_cancelled_connect_keeps_others_out_until_the_library_has_written() -> None:
    lock, entered = LibraryLock(), asyncio.Event()

    async def connect_another() -> None:
        async with lock.write():
            entered.set()

    client = Opening(lock)
    opening = asyncio.create_task(client.open(60.0, lambda: None))
    await asyncio.sleep(0)
    another = asyncio.create_task(connect_another())
    for _ in range(3):
        opening.cancel()
        await asyncio.wait([opening], timeout=0.01)
        assert not opening.done()
        assert not entered.is_set()
    client.written.set()
    async with asyncio.timeout(10.0):
        await another
    with pytest.raises(asyncio.CancelledError):
        await opening
