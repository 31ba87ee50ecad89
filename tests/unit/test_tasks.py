"""Tasks that are guaranteed to end."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from shardd.tasks import TaskSet, end_in_thread, end_tasks


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


async def test_a_task_set_ends_what_runs_and_passes_on_what_fails() -> None:
    errors, ended = list[Exception](), asyncio.Event()
    failed = asyncio.Event()

    async def fails() -> None:
        raise ZeroDivisionError

    async def runs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def note(error: Exception) -> None:
        errors.append(error)
        failed.set()

    tasks = TaskSet()
    tasks.start(runs(), note)
    tasks.start(fails(), note)
    async with asyncio.timeout(20):
        await failed.wait()
        assert not ended.is_set()
        await tasks.end()
        await tasks.end()
    assert ended.is_set()
    assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_a_call_in_a_thread_is_waited_for_however_often_it_is_cancelled() -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(20)
        raise OSError

    task = asyncio.create_task(end_in_thread(work))
    try:
        async with asyncio.timeout(20):
            await begun.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.wait([task], timeout=0.01)
            assert not task.done()
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
