import asyncio

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
