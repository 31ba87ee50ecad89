import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from shardd.transports.whatsapp.clients import library
from shardd.transports.whatsapp.clients.library import LibraryLock


async def test_a_writer_waits_for_readers_to_be_in_and_keeps_others_out() -> None:
    library_lock, told = LibraryLock(), []
    loop = asyncio.get_running_loop()
    reading: asyncio.Future[None] = loop.create_future()

    async def read(name: str, future: asyncio.Future[None]) -> None:
        await library_lock.read(lambda: future)
        told.append(name)

    async def write() -> None:
        async with library_lock.write():
            told.append("writer in")
            await asyncio.sleep(0)
            told.append("writer out")

    first = asyncio.create_task(read("first reader", reading))
    await asyncio.sleep(0)
    done: asyncio.Future[None] = loop.create_future()
    done.set_result(None)
    tasks = [asyncio.create_task(write()), asyncio.create_task(read("late reader", done))]
    await asyncio.sleep(0)
    assert told == []
    reading.set_result(None)
    await asyncio.gather(first, *tasks)
    assert told == ["first reader", "writer in", "writer out", "late reader"]


async def test_a_long_call_keeps_a_writer_out_only_while_it_enters() -> None:
    library_lock = LibraryLock()
    endless: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert await library_lock.read(lambda: endless) is endless
    async with library_lock.write():
        assert not endless.done()


async def test_a_call_that_cannot_begin_leaves_the_door_open() -> None:
    library_lock = LibraryLock()

    def refuse() -> asyncio.Future[None]:
        raise ValueError

    for _ in range(2):
        try:
            await library_lock.read(refuse)
        except ValueError:
            continue
    async with asyncio.timeout(20), library_lock.write():
        pass


def ended() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


async def test_readers_and_writers_take_turns() -> None:
    library_lock, told = LibraryLock(), []
    go_on = [asyncio.Event() for _ in range(3)]

    async def write(number: int) -> None:
        async with library_lock.write():
            told.append(f"writer {number}")
            await go_on[number].wait()

    async def read(name: str) -> None:
        await library_lock.read(ended)
        told.append(name)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(write(number))
            await asyncio.sleep(0)
        for number in range(3):
            # It waits for the writer that is in, and for none of those that came before it and wait.
            reading = tasks.create_task(read(f"reader {number}"))
            await asyncio.sleep(0)
            assert told[-1] == f"writer {number}"
            go_on[number].set()
            await reading
    assert told == [f"{who} {number}" for number in range(3) for who in ("writer", "reader")]


async def test_readers_that_keep_coming_keep_no_writer_out() -> None:
    library_lock, written = LibraryLock(), asyncio.Event()

    async def read() -> None:
        while not written.is_set():
            await library_lock.read(asyncio.get_running_loop().create_future)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(read())
        await asyncio.sleep(0)
        async with library_lock.write():
            written.set()


@pytest.mark.parametrize("seed", range(20))
async def test_a_writer_is_alone_whoever_is_cancelled_and_all_others_have_their_turn(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "READ_TIME", 60.0)
    library_lock, chance = LibraryLock(), random.Random(seed)
    readers = writers = 0
    loop = asyncio.get_running_loop()

    async def read() -> None:
        nonlocal readers

        async def inside() -> None:
            nonlocal readers
            assert not writers
            readers += 1
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                readers -= 1

        await asyncio.shield(await library_lock.read(lambda: loop.create_task(inside())))

    async def write() -> None:
        nonlocal writers
        async with library_lock.write():
            assert not writers
            assert not readers
            writers += 1
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                    assert (readers, writers) == (0, 1)
            finally:
                writers -= 1

    both: list[Callable[[], Awaitable[None]]] = [read, write]
    async with asyncio.timeout(20):
        tasks = []
        for _ in range(300):
            tasks.append(asyncio.ensure_future(chance.choice(both)()))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        async with library_lock.write():
            pass
        await library_lock.read(ended)
    assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
