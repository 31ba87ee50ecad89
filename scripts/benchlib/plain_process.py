"""Starts and controls processes of `plain_neonize`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from benchlib.cluster import Cluster
from benchlib.pooler import pooled
from benchlib.whatsapp_fleet import Stock
from benchlib.workload import BODY
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from tests.whatsapp_server.launch import ServerProcess

AT_ONCE: Final = 8
"""Connects in progress in one process."""
DEADLINE: Final = 300.0
LONGEST_ANSWER: Final = 1 << 26


class PlainProcess:
    """A running process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, do: str, *, deadline: float = DEADLINE, **parameters: Any) -> Any:
        """Call a method of `Plain` and wait for what it returns. Raises RuntimeError."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
        async with asyncio.timeout(deadline):
            return await self.answer()

    async def answer(self) -> Any:
        """The next answer. Raises RuntimeError if the process ends instead."""
        assert self._process.stdout is not None
        if not (line := await self._process.stdout.readline()):
            raise RuntimeError(f"plain neonize ended: {self._log.read_text()[-2000:]}")
        return json.loads(line)


@asynccontextmanager
async def plain_process(
    server: ServerProcess, store: str, log: Path, *, at_once: int, clients: int
) -> AsyncIterator[PlainProcess]:
    """A process for this many clients, once it has loaded the library; `store`: the session store as a URL of the library."""
    # Each client blocks a thread, and so does each call in flight.
    settings = {"store": store, "proxy": server.proxy_url(), "at_once": at_once, "threads": 2 * clients + 50}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchlib.plain_neonize", json.dumps(settings)),
            env=server.client_environment() | {"NEONIZE_BOT_TAG": "off", "GOMAXPROCS": "1"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            limit=LONGEST_ANSWER,
        )
    try:
        plain = PlainProcess(process, log)
        async with asyncio.timeout(DEADLINE):
            await plain.answer()
        yield plain
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class PlainFleet:
    """Several processes that share devices, as the workers of a node do."""

    def __init__(self, processes: list[PlainProcess]) -> None:
        self._processes = processes

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self._processes]

    async def send(
        self, messages: Mapping[str, list[str]], *, gap: tuple[float, float] = (0.0, 0.0), deadline: float
    ) -> list[list[tuple[float, float]]]:
        """Send to the recipients of each device, by session, as `Plain.send` does; its times. The order of sessions must stay."""
        work = [(session, recipients, BODY) for session, recipients in messages.items()]
        share = -(-len(work) // len(self._processes))
        answers = await asyncio.gather(
            *(
                process.ask("send", work=work[number * share : (number + 1) * share], gap=gap, deadline=deadline)
                for number, process in enumerate(self._processes)
            )
        )
        return [[(begun, ended) for begun, ended in times] for answer in answers for times in answer]


@asynccontextmanager
async def plain_fleet(
    cluster: Cluster, server: ServerProcess, stock: Stock, *, processes: int, pgbouncer: bool
) -> AsyncIterator[PlainFleet]:
    """Processes for the devices of `stock`, each with as many connects at once as a worker."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(pooled(cluster, stock.database)) if pgbouncer else stock.store
        clients = -(-len(stock.sessions) // processes)
        yield PlainFleet(
            [
                await stack.enter_async_context(
                    plain_process(
                        server,
                        library_dsn(store, pgbouncer=pgbouncer),
                        cluster.folder / "plain.log",
                        at_once=AT_ONCE,
                        clients=clients,
                    )
                )
                for _ in range(processes)
            ]
        )
