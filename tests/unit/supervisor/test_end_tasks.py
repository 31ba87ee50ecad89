from __future__ import annotations

import asyncio
import contextlib

from shardd.supervisor.tasks import end_tasks


async def test_a_task_that_forgets_a_cancellation_is_cancelled_again() -> None:
    started = asyncio.Event()
    forgotten = 0

    async def forgetful() -> None:
        nonlocal forgotten
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        forgotten += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(forgetful())
    await started.wait()
    async with asyncio.timeout(20):
        await end_tasks([task])
    assert task.cancelled()
    assert forgotten == 1


async def test_no_tasks_and_ended_tasks_take_no_time() -> None:
    async def fails() -> None:
        raise ValueError

    failed = asyncio.create_task(fails())
    await asyncio.wait([failed])
    async with asyncio.timeout(20):
        await end_tasks([])
        await end_tasks([failed])
    assert isinstance(failed.exception(), ValueError)
