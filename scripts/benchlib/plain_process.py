"""Starts and controls a `plain_neonize` process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.whatsapp_server.launch import ServerProcess

DEADLINE: Final = 300.0


class PlainProcess:
    """A running process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, do: str, **parameters: Any) -> None:
        """Call a method of `Plain` and wait until it returns. Raises RuntimeError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
        async with asyncio.timeout(DEADLINE):
            if not await self._process.stdout.readline():
                raise RuntimeError(f"plain neonize ended: {self._log.read_text()[-2000:]}")


@asynccontextmanager
async def plain_process(
    server: ServerProcess, store: str, log: Path, *, at_once: int, clients: int
) -> AsyncIterator[PlainProcess]:
    """A process for this many clients; `store`: the session store as a URL of the library."""
    # Each client blocks a thread, and so does each call in flight.
    settings = {"store": store, "proxy": server.proxy_url(), "at_once": at_once, "threads": 2 * clients + 50}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchlib.plain_neonize", json.dumps(settings)),
            env=server.client_environment() | {"NEONIZE_BOT_TAG": "off", "GOMAXPROCS": "1"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
        )
    try:
        yield PlainProcess(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
