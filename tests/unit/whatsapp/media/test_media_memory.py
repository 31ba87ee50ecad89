from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardd.errors import DeviceUnavailableError
from shardd.transports.whatsapp.media.memory import MediaMemory

BUDGET, LARGEST = 100, 40


async def step() -> None:
    """Let everybody do what they can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_begins_first_comes_first() -> None:
    memory = MediaMemory(BUDGET)
    done: list[str] = []

    async def take(name: str, size: int) -> None:
        share = memory.begin()
        await share.hold(size)
        share.finish()
        done.append(name)

    whole = memory.begin()
    await whole.hold(90)
    whole.finish()
    tasks = [asyncio.create_task(take(name, size)) for name, size in (("large", 40), ("small", 5), ("tiny", 1))]
    await step()
    assert done == []  # the small ones do not pass the large one
    whole.release()
    await asyncio.gather(*tasks)
    assert done == ["large", "small", "tiny"]
    assert memory.held == 46


async def test_files_that_all_grow_do_not_wait_for_each_other() -> None:
    memory = MediaMemory(BUDGET)
    most = 0

    async def grow() -> None:
        nonlocal most
        share = memory.begin()
        for size in range(1, LARGEST + 1):
            await share.hold(size)
            most = max(most, memory.held)
            await asyncio.sleep(0)
        share.finish()
        await asyncio.sleep(0)
        share.release()

    async with asyncio.timeout(10):
        await asyncio.gather(*(grow() for _ in range(20)))
    assert memory.held == 0
    assert BUDGET <= most <= BUDGET + LARGEST


async def test_a_file_above_the_budget_goes_alone() -> None:
    memory = MediaMemory(BUDGET)
    share = memory.begin()
    await share.hold(10 * BUDGET)
    share.finish()
    other = memory.begin()
    waiting = asyncio.create_task(other.hold(1))
    await step()
    assert not waiting.done()
    share.release()
    await waiting


async def test_who_gives_up_gives_everything_back() -> None:
    memory = MediaMemory(BUDGET)
    first, second, third = memory.begin(), memory.begin(), memory.begin()
    await first.hold(90)
    first.finish()
    waiting = [asyncio.create_task(share.hold(50)) for share in (second, third)]
    await step()
    waiting[0].cancel()
    second.release()
    second.release()  # once is enough, twice does no harm
    first.release()
    await waiting[1]
    assert memory.held == 50
    third.release()
    assert memory.held == 0


async def test_who_finds_no_room_in_time_goes_back_to_the_queue() -> None:
    memory = MediaMemory(BUDGET, patience=0.1)
    whole, other = memory.begin(), memory.begin()
    await whole.hold(BUDGET)
    whole.finish()
    with pytest.raises(DeviceUnavailableError, match="as many bytes of media as media_memory allows") as caught:
        await other.hold(1)
    assert (caught.value.state, caught.value.retry_after) == (None, 5.0)
    other.release()
    whole.release()
    assert memory.held == 0


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), files=st.integers(1, 30), budget=st.integers(1, 200))
def test_the_budget_holds_and_everybody_comes_through(seed: int, files: int, budget: int) -> None:
    chance = random.Random(seed)
    memory = MediaMemory(budget)
    most = 0

    async def live() -> None:
        nonlocal most
        share = memory.begin()
        try:
            size = 0
            for _ in range(chance.randrange(5)):
                size += chance.randrange(LARGEST // 4)
                await share.hold(size)
                assert share.size >= size
                most = max(most, memory.held)
                await _idle(chance)
            share.finish()
            await _idle(chance)
        finally:
            share.release()

    async def all_of_them() -> None:
        tasks = []
        for _ in range(files):
            tasks.append(asyncio.create_task(live()))
            await _idle(chance)
            if chance.random() < 0.2:
                chance.choice(tasks).cancel()
        await asyncio.wait(tasks, timeout=20)
        assert all(task.done() for task in tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)

    asyncio.run(all_of_them())
    assert memory.held == 0
    assert most <= budget + LARGEST


async def _idle(chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)
