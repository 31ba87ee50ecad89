"""Tools for asyncio: tasks and calls in threads that are certain to end, waits with a timeout, wake-ups at a bounded rate.

Before Python 3.12 `asyncio.wait_for`, with which psycopg's pool waits for a connection, loses a cancellation that arrives
together with its result (bpo-37658). A task that was cancelled once may live on, and `asyncio.TaskGroup`, which cancels its
children once, would wait for it forever. anyio's task groups cancel repeatedly, but would have to run everything below them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

AGAIN: Final = 0.5
"""Seconds until a task that has not ended is cancelled again."""
SHARE: Final = 4.0
"""Work that is requested again and again leaves this many times its own duration to everything else."""


async def do_nothing() -> None:
    """The default of a callback."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until every task has ended; exceptions are discarded. Cancelled itself, it still waits for that."""
    left = everyone = set(tasks)
    cancelled: asyncio.CancelledError | None = None
    while left:
        for task in left:
            task.cancel()
        try:
            _, left = await asyncio.wait(left, timeout=AGAIN)
        except asyncio.CancelledError as error:
            cancelled = error
            left = {task for task in left if not task.done()}
    await asyncio.gather(*everyone, return_exceptions=True)
    if cancelled is not None:
        raise cancelled


async def run_together(*work: Coroutine[Any, Any, None]) -> None:
    """Run endless loops side by side; when one fails or this is cancelled, all end. Raises what one raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        await end_tasks(tasks)
    for task in ended:
        await task


async def end_in_thread(call: Callable[[], T]) -> T:
    """Call in a thread, and wait for its end however often this is cancelled: it uses what is closed afterwards."""
    return await uncancelled(asyncio.to_thread(call))


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Wait for the end of `work` however often this is cancelled; then the cancellation counts. `work` must be certain to end."""
    working = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        await asyncio.gather(working, return_exceptions=True)
        raise cancelled
    return working.result()


class TaskSet:
    """Tasks that a long-running part starts as needed and ends with itself."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], failed: Callable[[Exception], None]) -> asyncio.Task[None]:
        """Run `work` in a task of its own, which is returned; `failed` gets what it raises."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                failed(error)

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    async def end(self) -> None:
        """Cancel all and wait until they have ended."""
        await end_tasks(self._tasks)


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event, at most so many seconds (None: without end); returns whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Line:
    """Tasks that wait for their turn, first come, first served. Who lets one in counts it, so it cannot be overtaken."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, leave: Callable[[], None]) -> None:
        """Until let in. `leave`: called when this is cancelled after that, to give the turn back."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it may have been passed over
                    self._waiting.remove(turn)
            else:
                leave()
            raise

    def let_in(self) -> bool:
        """Let in the one who has waited longest; returns whether there is one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        return False


class WakeUp:
    """Begins periodic work early on request, but not more often than `spacing` (seconds) allows.

    The first request is granted at once. Those that follow are coalesced: the work begins `spacing` seconds after its last
    begin, or later if it takes long, so a thousand requests a second cause a bounded load. A `burst` of requests may come
    closer together, as long as the work leaves its share of time; each `spacing` allows one more.
    """

    def __init__(self, spacing: float, burst: int = 0) -> None:
        self._spacing = spacing
        self._burst = burst
        self._left = float(burst)
        self._event = asyncio.Event()
        self._began = float("-inf")

    def set(self) -> None:
        """Request the work; costs next to nothing."""
        self._event.set()

    async def wait(self, seconds: float | None) -> bool:
        """Wait until the work should begin: after `seconds` (None: never), or earlier on request.

        Returns whether it was requested.
        """
        loop = asyncio.get_running_loop()
        ended = loop.time()
        deadline = float("inf") if seconds is None else ended + seconds
        spacing = 0.0 if self._left >= 1.0 else self._spacing
        earliest = self._began + max(spacing, (1 + SHARE) * (ended - self._began)) if self._began >= 0 else ended
        await asyncio.sleep(min(earliest, deadline) - ended)
        asked = await wait_for_event(self._event, None if seconds is None else max(0.0, deadline - loop.time()))
        self._event.clear()
        before, self._began = self._began, loop.time()
        if before >= 0:
            self._left = min(self._burst, self._left + (self._began - before) / self._spacing) - asked
        return asked
