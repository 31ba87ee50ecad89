"""Ending tasks for certain.

Before Python 3.12 `asyncio.wait_for`, with which psycopg's pool waits for a connection, forgets a cancellation that
comes at the moment of its result (bpo-37658). A task that was cancelled once may thus live on, and waiting for its end
would last for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN: Final = 0.5
"""Seconds until a task that has not ended is cancelled again."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel until every task has ended; exceptions are discarded."""
    left = everyone = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    await asyncio.gather(*everyone, return_exceptions=True)
