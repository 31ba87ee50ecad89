"""One node of the storm: a `shardd start` with its own state folder, started again whenever it ends, as systemd would."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from shardd.control_client import ask
from shardd.embedded.home import tied
from shardd.errors import SharddError
from stormlib.cable import Cable
from stormlib.link import Link
from stormlib.log import Log

RESTART_AFTER = 0.5
"""Seconds until it is started again after it ended by itself."""
STOP_LIMIT = 120.0
"""Seconds in which a planned stop must end."""
STATUS_LIMIT = 3.0


class Node:
    """A supervisor and its workers.

    Its links are its network: `databases`, `sessions` (to the PgBouncer) and `whatsapp`. They go through its `cable`, if there is
    one.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Mapping[str, Any],
        environ: Mapping[str, str],
        log: Log,
        *,
        cable: Cable | None,
        databases: list[Link],
        sessions: Link | None,
        whatsapp: Link | None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.cable = cable
        self.databases = databases
        self.sessions = sessions
        self.whatsapp = whatsapp
        self._environ = dict(environ)
        self._log = log
        self._wanted = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        folder.mkdir(mode=0o700)
        self.state_dir.mkdir(mode=0o700)
        self._config = folder / "shards.yaml"
        self._config.write_text(yaml.safe_dump({"node": name, "state_dir": str(self.state_dir), **settings}))

    @property
    def links(self) -> list[Link]:
        """All."""
        return [link for link in (*self.databases, self.sessions, self.whatsapp) if link is not None]

    @property
    def state_dir(self) -> Path:
        """Its identity."""
        return self.folder / "state"

    @property
    def pid(self) -> int | None:
        """The supervisor's, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self) -> None:
        """Let it run from now on."""
        self._wanted.set()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    def kill_all(self) -> None:
        """As when the host dies: nobody finishes anything. It is not started again before `start`."""
        self._wanted.clear()
        self.signal_supervisor(signal.SIGSTOP)
        for pid in self.worker_pids():
            send(pid, signal.SIGKILL)
        self.signal_supervisor(signal.SIGKILL)

    def signal_supervisor(self, signum: int) -> None:
        """Send a signal, if it runs."""
        if self.pid is not None:
            send(self.pid, signum)

    async def stop(self) -> int | None:
        """A planned stop; returns its exit code, None: it did not end in time and was killed."""
        self._wanted.clear()
        process = self._process
        if process is None or process.returncode is not None:
            return 0
        send(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_LIMIT):
                code = await process.wait()
        except TimeoutError:
            self.kill_all()
            return None
        await self._idle.wait()
        return code

    async def close(self) -> None:
        """End everything at once."""
        if self._keeper is not None:
            self._keeper.cancel()
        self.kill_all()
        if self._process is not None:
            await self._process.wait()
        for pid in self.worker_pids():
            send(pid, signal.SIGKILL)

    def worker_pids(self) -> list[int]:
        """Its live workers by shard, also those of an earlier supervisor: whoever has a journal of it open."""
        folder, found = f"{self.state_dir}/journal/", []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"shardd.worker" in (process / "cmdline").read_bytes():
                    found += [(name, int(process.name)) for name in _open_files(process) if name.startswith(folder)]
        return [pid for _, pid in sorted(found)]

    async def status(self) -> dict[str, Any] | None:
        """What `shardd status --json` prints; None: it does not answer."""
        try:
            async with asyncio.timeout(STATUS_LIMIT):
                answer: dict[str, Any] = await ask(self.state_dir / "control.sock", "GET", "/status")
                return answer
        except (SharddError, TimeoutError, OSError):
            return None

    async def _keep(self) -> None:
        while True:
            self._idle.set()
            await self._wanted.wait()
            self._idle.clear()
            command = [sys.executable, "-m", "shardd.cli.main", "start", f"--config={self._config}"]
            if self.cable is not None:
                command = self.cable.inside(command)
            with (self.folder / "daemon.log").open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *tied(command, os.geteuid(), os.getegid()),
                    env=self._environ, cwd=self.folder, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip
            began = time.monotonic()
            self._log.write("start", node=self.name, pid=self._process.pid)
            code = await self._process.wait()
            self._log.write("end", node=self.name, code=code, after=round(time.monotonic() - began, 3))
            if self._wanted.is_set():
                await asyncio.sleep(RESTART_AFTER)


def send(pid: int, signum: int) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def _open_files(process: Path) -> list[str]:
    found = []
    for fd in (process / "fd").iterdir():
        with suppress(OSError):
            found.append(str(fd.readlink()))
    return found
