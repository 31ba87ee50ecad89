"""Ending tasks for certain.

Before Python 3.12 `asyncio.wait_for`, with which psycopg's pool waits for a connection, forgets a cancellation that comes at the
moment of its result (bpo-37658). A task that was cancelled once may live on, and waiting for its end, as
`asyncio.TaskGroup` does, would never return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

AGAIN: Final = 0.5
"""Seconds until a task that has not ended is cancelled again."""


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
