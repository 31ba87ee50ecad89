"""How many devices may be given jobs while others connect."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from shardd.errors import DeviceUnavailableError
from shardd.transports.whatsapp.clients import connecting
from shardd.transports.whatsapp.clients.connecting import AHEAD, Connecting


async def test_a_device_more_for_each_that_has_dialled_up_to_the_limit() -> None:
    told: list[int] = []
    limit = Connecting(2, 60.0, lambda: told.append(limit.openings))
    assert limit.openings == AHEAD
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        dialled = await first.enter_async_context(limit.turn("a"))
        await second.enter_async_context(limit.turn("b"))
        # What has not dialled would only wait for others.
        assert limit.openings == AHEAD
        dialled()
        assert told == [AHEAD + 1]
        await first.aclose()
        assert told == [AHEAD + 1, AHEAD]
    assert limit.openings == AHEAD


async def test_a_connect_that_only_waits_for_the_network_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "CONNECT_COST", 0.01)
    changed = asyncio.Event()
    limit = Connecting(1, 60.0, changed.set)
    async with limit.turn("slow") as dialled:
        dialled()
        await changed.wait()
        assert limit.openings == AHEAD + 1
        async with asyncio.timeout(20), limit.turn("next") as next_dialled:
            next_dialled()
            assert limit.openings == AHEAD + 2
    assert limit.openings == AHEAD


@pytest.mark.parametrize("dials", [False, True])
async def test_a_connect_that_fails_leaves_nothing_behind(dials: bool) -> None:
    limit = Connecting(1, 0.0, lambda: None)

    async def fail() -> None:
        async with limit.turn("a") as dialled:
            if dials:
                dialled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert limit.openings == AHEAD
    async with limit.turn("b"):
        with pytest.raises(DeviceUnavailableError, match="device c waited 0 seconds for others to connect"):
            await limit.turn("c").__aenter__()
    assert limit.openings == AHEAD
