import asyncio
import threading
import time

import pytest

from shardd.transports.whatsapp.clients import library
from shardd.transports.whatsapp.clients.library import ElasticThreads

DEADLINE = 20.0


async def test_more_calls_block_than_any_fixed_pool_has_threads() -> None:
    asyncio.get_running_loop().set_default_executor(ElasticThreads())
    gate = threading.Barrier(101)
    blocked = [asyncio.create_task(asyncio.to_thread(gate.wait, DEADLINE)) for _ in range(100)]
    await asyncio.to_thread(gate.wait, DEADLINE)
    await asyncio.gather(*blocked)


async def test_results_and_errors_arrive() -> None:
    asyncio.get_running_loop().set_default_executor(ElasticThreads())
    assert await asyncio.to_thread(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 / 0)


def test_idle_threads_are_used_again_and_leave_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "IDLE_SECONDS", 0.2)
    executor = ElasticThreads()
    before = threading.active_count()
    for _ in range(50):
        executor.submit(int).result(DEADLINE)
    assert threading.active_count() <= before + 2
    end = time.monotonic() + DEADLINE
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert executor.submit(int).result(DEADLINE) == 0


def test_shutdown_waits_for_nobody() -> None:
    executor, stuck = ElasticThreads(), threading.Event()
    executor.submit(stuck.wait, DEADLINE)
    executor.shutdown(wait=True)
    with pytest.raises(RuntimeError, match="no new calls"):
        executor.submit(int)
    stuck.set()
