"""Who opens many streams of pages gives up their own, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from shardd.dashboard import live as live_module
from shardd.dashboard.live import OVER, Live, Stream
from shardd.dashboard.sign_ins import How, Role, SignIn
from shardd.queue.database import Database

MOST = 6


@pytest.fixture
async def live(database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    monkeypatch.setattr(live_module, "MOST", MOST)
    live = Live(database, Database(dsn), lambda _: True)
    yield live
    await live.close()


async def test_the_place_for_a_new_stream_is_one_of_whoever_has_the_most(live: Live) -> None:
    def open_one(user: str) -> Any:
        watching = Stream(SignIn(user, How.PASSWORD, Role.LOOK, "127.0.0.1"), frozenset())
        return watching, live.changes(watching)

    async with AsyncExitStack() as stack:
        opened = []
        for user in ["ada"] + ["bob"] * MOST:
            watching, changes = open_one(user)
            await stack.enter_async_context(aclosing(changes))
            opened.append((watching, changes, asyncio.ensure_future(anext(changes))))
            await asyncio.sleep(0)
        (_, _, adas), (_, _, first), *others = opened
        assert (await first)[0] == OVER
        assert not adas.done()
        for one in (adas, *(task for _, _, task in others)):
            one.cancel()
        await asyncio.gather(adas, *(task for _, _, task in others), return_exceptions=True)
