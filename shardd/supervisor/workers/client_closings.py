"""Asking a worker to close a device's client, and waiting for it: another process is about to use the session."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

from shardd import ipc
from shardd.errors import SharddError
from shardd.supervisor.workers.process import WorkerProcess

CLOSE_TIMEOUT: Final = 30.0
"""Seconds that a device's send may take before its client can be closed."""


class ClientClosings:
    """The requests that are not answered yet."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def close(self, process: WorkerProcess, device_id: str) -> None:
        """Close a device's client in this worker; when the worker dies, its client is gone too. Raises SharddError."""
        request = next(self._ids)
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        gone = asyncio.ensure_future(process.gone.wait())
        try:
            process.say(ipc.Close(devices=[device_id], request=request))
            done, _ = await asyncio.wait([future, gone], timeout=CLOSE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            del self._waiting[request]
        if not done:
            raise SharddError(
                f"device {device_id} is still sending after {CLOSE_TIMEOUT:g} s: pause it, then try again"
            )

    def closed(self, request: int) -> None:
        """A worker's answer."""
        future = self._waiting.get(request)
        if future is not None and not future.done():
            future.set_result(None)
