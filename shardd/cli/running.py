"""Commands that are coroutines: run from click, which calls no others, until they end or are asked to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from shardd.cli.output import say

Result = TypeVar("Result")


def run_coroutine(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it from a program without an event loop. SIGTERM cancels it, as ^C does, so that it cleans up; exit code 143."""

    async def run() -> Result:
        task = asyncio.current_task()
        assert task is not None  # this coroutine runs in one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    # Without a handler, Python prints what the pool logs of a lost connection; the error says it in words.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        say("aborted", err=True)
        raise SystemExit(128 + signal.SIGTERM) from None
