"""Starts `shardd start` for a benchmark, and queries it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from shardd.config import load_config
from shardd.control_client import ask
from shardd.embedded.home import Account, my_name
from shardd.errors import NotRunningError
from shardd.supervisor.workers.spares import LEAST

DEADLINE: Final = 120.0
"""Seconds for its start and for its end, after which the benchmark fails."""
LOOK_EVERY: Final = 0.05


@dataclass(frozen=True)
class Daemon:
    """A running daemon."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path

    async def status(self) -> dict[str, Any]:
        """The result of `shardd status --json`."""
        answer: dict[str, Any] = await ask(self.socket, "GET", "/status", timeout=DEADLINE)
        return answer

    async def until(self, true: Callable[[dict[str, Any]], bool], deadline: float = DEADLINE) -> dict[str, Any]:
        """The first status that fulfils a condition."""
        async with asyncio.timeout(deadline):
            while not true(status := await self.status()):  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(LOOK_EVERY)
            return status

    async def close_device(self, device_id: str) -> None:
        """Close a device's client and wait until it has ended."""
        await ask(self.socket, "POST", f"/devices/{device_id}/close", timeout=DEADLINE)

    async def workers(self) -> list[int]:
        """The process ids of running workers."""
        return [shard["pid"] for shard in (await self.status())["shards"] if shard["pid"]]


@asynccontextmanager
async def running_daemon(
    folder: Path, config: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> AsyncIterator[Daemon]:
    """A daemon with this config and its files in `folder`, once its workers and spares are running.

    A spare that starts takes CPU of what is measured. `environment` extends the daemon's own.
    """
    state_dir, log = folder / "state", folder / "shardd.log"
    file = folder / "shards.yaml"
    file.write_text(yaml.safe_dump({"node": "bench", "state_dir": str(state_dir), **config}))
    configured = load_config(file).supervisor.spares
    spares = LEAST if configured is None else configured
    more = [f"{name}={value}" for name, value in (environment or {}).items()]
    account = Account(my_name(), os.geteuid(), os.getegid())
    with log.open("ab") as output:
        # Spawned like the server: if the benchmark is killed, the kernel signals the daemon to stop.
        process = account.spawn(
            ["/usr/bin/env", *more, sys.executable, "-m", "shardd.cli.main", "start", "--config", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    daemon = Daemon(process, state_dir / "control.sock", log)
    try:
        async with asyncio.timeout(DEADLINE):
            while not await _is_running(daemon, spares):
                if process.poll() is not None:
                    raise RuntimeError(f"shardd start failed: {log.read_text()}")
                await asyncio.sleep(LOOK_EVERY)
        yield daemon
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.shield(asyncio.to_thread(process.wait, DEADLINE))
        finally:
            process.kill()


async def _is_running(daemon: Daemon, spares: int) -> bool:
    try:
        status = await daemon.status()
    except NotRunningError:
        return False
    mine = [shard for shard in status["shards"] if shard["epoch"] is not None]
    ready = status["state"] == "running" and status["spares"] >= spares
    return ready and all(shard["state"] == "running" for shard in mine)
