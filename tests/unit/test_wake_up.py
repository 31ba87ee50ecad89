"""Work that strangers can trigger starts at once, but its cost is bounded however often they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shardd.tasks import SHARE, WakeUp


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes only while nobody has anything to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        select = self._selector.select

        def skip(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        self._selector.select = skip

    def time(self) -> float:
        return self.now


@pytest.fixture
def on_clock() -> Any:
    loop = Clock()
    yield loop.run_until_complete
    loop.close()


def test_the_first_request_is_granted_at_once(on_clock: Callable[..., Any]) -> None:
    async def story() -> None:
        loop, wake = asyncio.get_running_loop(), WakeUp(1.0)
        loop.call_later(3.0, wake.set)
        assert await wake.wait(10.0)
        assert loop.time() == pytest.approx(3.0)
        loop.call_later(5.0, wake.set)
        assert await wake.wait(10.0)
        assert loop.time() == pytest.approx(8.0)

    on_clock(story())


def test_without_a_request_the_work_begins_in_its_own_time(on_clock: Callable[..., Any]) -> None:
    async def story() -> None:
        loop, wake = asyncio.get_running_loop(), WakeUp(1.0)
        for turn in range(1, 4):
            assert not await wake.wait(0.25)
            assert loop.time() == pytest.approx(turn * 0.25)

    on_clock(story())


def test_a_thousand_requests_are_granted_once_in_a_spacing(on_clock: Callable[..., Any]) -> None:
    async def story() -> None:
        loop, wake, runs = asyncio.get_running_loop(), WakeUp(1.0), []

        async def ask() -> None:
            while True:
                wake.set()
                await asyncio.sleep(0.001)

        asking = asyncio.create_task(ask())
        while loop.time() < 9.5:
            assert await wake.wait(100.0)
            runs.append(loop.time())
        asking.cancel()
        assert len(runs) == 11

    on_clock(story())


def test_a_burst_is_granted_closely_and_what_goes_on_is_not(on_clock: Callable[..., Any]) -> None:
    async def story() -> None:
        loop, wake, runs = asyncio.get_running_loop(), WakeUp(1.0, burst=10), []

        async def ask() -> None:
            while True:
                wake.set()
                await asyncio.sleep(0.01)

        asking = asyncio.create_task(ask())
        while loop.time() < 9.5:
            assert await wake.wait(100.0)
            runs.append(loop.time())
        asking.cancel()
        assert sum(at < 1.0 for at in runs) == 11, "the first, and the burst"
        assert sum(at > 1.0 for at in runs) == pytest.approx(9, abs=1)
        while await wake.wait(20.0):
            pass  # what was asked for last
        rested, runs = loop.time(), []
        asking = asyncio.create_task(ask())
        while loop.time() < rested + 0.5:
            assert await wake.wait(100.0)
            runs.append(loop.time())
        asking.cancel()
        assert len(runs) >= 10, "it may burst again"

    on_clock(story())


def test_work_that_takes_long_leaves_time_to_everything_else(on_clock: Callable[..., Any]) -> None:
    async def story() -> None:
        loop, wake = asyncio.get_running_loop(), WakeUp(0.1)
        wake.set()
        await wake.wait(100.0)
        began = loop.time()
        await asyncio.sleep(2.0)
        wake.set()
        assert await wake.wait(100.0)
        assert loop.time() - began == pytest.approx((1 + SHARE) * 2.0)
        # But never later than it would have begun unasked.
        await asyncio.sleep(2.0)
        wake.set()
        began = loop.time()
        assert await wake.wait(1.0)
        assert loop.time() - began == pytest.approx(1.0)

    on_clock(story())
