"""Whoever asks slowly, and as often as they may, keeps no other out, of the pages and of the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shardd.dashboard.api import serving
from shardd.dashboard.site import AT_ONCE_OF_ONE
from tests.acceptance.dashboard.looks import StartDaemon
from tests.fixtures.api import MakeProgram
from tests.support.daemon import PATIENCE, Daemon
from tests.support.queue_rows import connect
from tests.support.visitor import USERS, visitor

PAGES = ("/devices", "/webhooks", "/events", "/account")


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    return await start_daemon(users=USERS)


@asynccontextmanager
async def slow_requests(dsn: str, ask: Callable[[], Awaitable[Any]], number: int) -> AsyncIterator[None]:
    """During the block, so many requests for what is locked are always under way."""
    ended = False

    async def again() -> None:
        while not ended:
            await ask()

    with connect(dsn) as owner, owner.transaction():
        owner.execute("LOCK TABLE shardd.opt_outs IN ACCESS EXCLUSIVE MODE")
        async with asyncio.TaskGroup() as asking:
            for _ in range(number):
                asking.create_task(again())
            yield
            ended = True
            owner.execute("ROLLBACK")


async def test_a_user_or_a_token_with_many_slow_requests_keeps_no_other_out(
    daemon: Daemon, dsn: str, make_program: MakeProgram
) -> None:
    greedy, modest = await make_program("look"), await make_program("look")
    async with visitor(daemon) as ada, visitor(daemon) as bob, asyncio.timeout(PATIENCE):
        await ada.sign_in("ada")
        await bob.sign_in("bob")

        async def others_are_answered() -> None:
            for page in PAGES:
                answer = await ada.get(page)
                assert answer.status == 200, await answer.text()
            found = await modest.get("/campaigns")
            assert found.status == 200, found
            async with visitor(daemon) as late:
                assert (await late.get("/sign-in")).status == 200
                await late.sign_in("ada")

        async with slow_requests(dsn, lambda: bob.get("/opt-outs"), AT_ONCE_OF_ONE):
            while (refused := await bob.get("/account")).status != 429:
                assert refused.status == 200  # not all of them have been read
            assert f"{AT_ONCE_OF_ONE} requests of user bob are answered already" in await refused.text()
            await others_are_answered()
        assert (await bob.get("/opt-outs")).status == 200
        async with slow_requests(dsn, lambda: greedy.get("/opt-outs"), serving.AT_ONCE_OF_ONE):
            while (await greedy.get("/problems/refused")).status != 429:
                pass
            await others_are_answered()
