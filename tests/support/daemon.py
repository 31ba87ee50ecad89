"""A real `shardd start` for tests: its config, its process and its status.

Readiness and the end are awaited through systemd's notify socket. A condition on the status or on rows is checked at every
notification, and at least a few times a second, because not every change is announced.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import yaml

from shardd.control_client import ask
from shardd.state_files import ID_FILE

PATIENCE = 60.0
FINISHED = ("sent", "failed", "cancelled", "in_doubt")
"""Seconds after which a test fails because something hangs."""
LOOK_AGAIN = 0.2
"""Seconds after which a condition is checked again without a notification."""


class Daemon:
    """One supervisor with its state folder; it can be started and killed any number of times."""

    def __init__(self, state_dir: Path, dsn: str | None, **config: Any) -> None:
        """`config`: sections of shards.yaml that differ from the tests' defaults."""
        self.state_dir = state_dir
        self.dsn = dsn
        self.config_file = state_dir / "shards.yaml"
        self.log_file = state_dir / "daemon.log"
        self.environ: dict[str, str] = {"SSL_CERT_FILE": os.devnull}
        """No CA: to read a system's hundred and more is a seventh of a start, and what tests send goes to loopback."""
        self.inside: tuple[str, ...] = ()
        """A command that runs the rest of its command line, such as setpriv, in front of shardd."""
        settings: dict[str, Any] = {
            "node": "test",
            "state_dir": str(state_dir),
            "shards": 2,
            "pacing": {"gap_min": 0, "gap_max": 0, "hourly_limit": 0, "daily_limit": 0},
            "transports": {
                "sandbox": {"latency_min": "1ms", "latency_max": "5ms"},
                "whatsapp": {"visit_every": "never"},  # tests count logins
            },
            "supervisor": {
                "spawn_every": "10ms",
                "backoff": {"first": "100ms", "cap": "1s"},
                "drain_timeout": "10s",
                "spares": 0,  # a process more for each test
            },
            "dashboard": {"listen": None},  # all would have the same port
            "log": {"level": "info", "format": "json"},
        }
        if dsn is not None:
            settings["database"] = {"dsn": dsn}
        self.settings = _merge(settings, config)
        self.process: asyncio.subprocess.Process | None = None
        self._notify: socket.socket | None = None
        self.said: list[str] = []

    @property
    def home(self) -> Path:
        """The state folder, which need not contain the config."""
        return Path(self.settings["state_dir"])

    @property
    def socket(self) -> Path:
        return Path(self.settings.get("control", {}).get("socket") or self.home / "control.sock")

    def take_place(self, place: int) -> None:
        """Fix the node's random id, by which shards are shared: places 0 and 1 get half of 2, 4 or 8 shards each."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        file = self.home / ID_FILE
        file.touch(mode=0o600)
        file.write_text(f"{place}" * 32 + "\n")

    def write_config(self, **config: Any) -> None:
        self.settings = _merge(self.settings, config)
        self.config_file.write_text(yaml.safe_dump(self.settings))

    async def start(self, *, wait: bool = True) -> None:
        self.write_config()
        path = self.state_dir / "notify.sock"
        path.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(path))
        self._notify.setblocking(False)
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(*self.inside, sys.executable, "-m", "shardd.cli.main", "start", f"--config={self.config_file}"),
                env={**os.environ, **self.environ, "NOTIFY_SOCKET": str(path)},
                stderr=log,
                stdout=log,
            )
        if wait:
            await self.wait_said("READY=1")

    async def wait_said(self, word: str) -> str:
        """Wait for the next notification that contains a word."""
        assert self._notify is not None
        assert self.process is not None
        ended = asyncio.create_task(self.process.wait())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        try:
            while True:
                heard = asyncio.create_task(loop.sock_recv(self._notify, 4096))
                try:
                    await asyncio.wait(
                        [heard, ended], return_when=asyncio.FIRST_COMPLETED, timeout=deadline - loop.time()
                    )
                    if not heard.done():
                        what = "ended" if ended.done() else f"never said {word!r}, but {self.said[-3:]}"
                        raise AssertionError(f"shardd {what}\n{self.log_tail()}")
                finally:
                    heard.cancel()
                text = heard.result().decode()
                self.said.append(text)
                if word in text:
                    return text
        finally:
            ended.cancel()

    async def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        return await self.wait_end()

    async def wait_end(self) -> int:
        assert self.process is not None
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            raise AssertionError(f"shardd did not end: {self.log_tail()}") from None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    async def close(self) -> None:
        """Kill it together with its workers."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        for pid in self.worker_pids():
            with suppress(ProcessLookupError):  # it may have ended by itself, because its supervisor is gone
                os.kill(pid, signal.SIGKILL)
        if self._notify is not None:
            self._notify.close()

    def worker_pids(self) -> list[int]:
        """Every live worker process of this state folder, also of an earlier supervisor."""
        return [pid for pid, files in _processes_with(self.home / "journal") if files]

    def spare_pids(self) -> list[int]:
        """Every live process of this daemon that was started as a spare worker and has no shard yet."""
        assert self.process is not None
        return [
            pid
            for pid, files in _processes_with(self.home / "journal")
            if not files and _is_spare_of(self.process.pid, pid)
        ]

    def dashboard_pids(self) -> list[int]:
        """The live processes of this daemon's dashboard."""
        assert self.process is not None
        return [pid for pid in children_of(self.process.pid) if b"shardd.dashboard" in _command(pid)]

    async def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = await ask(self.socket, "GET", "/status")
        return answer

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a status that fulfils a condition."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status = await self.status()
            if true(status):
                return status
            assert time.monotonic() < deadline, f"never came true: {status}\n{self.log_tail(40)}"
            await self.wait_change()

    async def wait_change(self) -> None:
        """Wait briefly for a notification."""
        try:
            async with asyncio.timeout(LOOK_AGAIN):
                await self.wait_said("STATUS=")
        except TimeoutError:
            pass

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log_file.read_text().splitlines()[-lines:]) if self.log_file.exists() else ""

    def messages(self) -> list[dict[str, Any]]:
        """The deliveries of the sandbox, in the order of each file."""
        found = []
        for file in sorted((self.home / "sandbox").glob("shard-*.jsonl")):
            found += [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        return found


class Producer:
    """A separate program that inserts rows and reads outcomes."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def execute(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def add_devices(self, count: int, transport: str = "sandbox", prefix: str = "d") -> list[str]:
        rows = self.execute(
            "INSERT INTO shardd.devices (id, transport) SELECT %s || g, %s FROM generate_series(1, %s) g RETURNING id",
            *(prefix, transport, count),
        )
        return [row[0] for row in rows]

    def add_jobs(self, count: int, devices: int, prefix: str = "d") -> None:
        """Insert jobs; the body of each is its number on its device."""
        self.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) "
            "SELECT %s || 1 + g %% %s, '+49151' || 1000000 + g, (g / %s)::text FROM generate_series(0, %s - 1) g",
            *(prefix, devices, devices, count),
        )

    def acts(self) -> list[tuple[str, str, str]]:
        """(act, target, result) of the audit log."""
        rows = self.execute("SELECT act, target, result FROM shardd.acts ORDER BY id")
        return [(act, target, result) for act, target, result in rows]

    def states(self) -> Counter[str]:
        return Counter(dict(self.execute("SELECT state, count(*) FROM shardd.outcomes GROUP BY state")))

    async def until_finished(self, daemon: Daemon, count: int, patience: float = PATIENCE) -> Counter[str]:
        """Wait until this many jobs are sent, failed, cancelled or in doubt; for `patience` seconds after the last of them."""
        deadline, most = time.monotonic() + patience, 0
        while True:
            try:
                states = self.states()
            except psycopg.OperationalError:
                states = Counter()
            finished = sum(states[state] for state in FINISHED)
            if finished >= count:
                return states
            if finished > most:
                deadline, most = time.monotonic() + patience, finished
            assert time.monotonic() < deadline, f"not finished: {states}\n{daemon.log_tail(40)}"
            await daemon.wait_change()


async def wait_gone(pid: int) -> None:
    """Wait for the end of a process, which need not be a child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, gone.set)
    try:
        async with asyncio.timeout(20):
            await gone.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = base.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _processes_with(folder: Path) -> list[tuple[int, list[str]]]:
    """Worker processes, each with its open files below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"shardd.worker" not in (process / "cmdline").read_bytes():
                continue
            fds = list((process / "fd").iterdir())
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        found.append((int(process.name), [target for fd in fds if (target := _target(fd)).startswith(str(folder))]))
    return found


def _is_spare_of(parent: int, pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1]) == parent and b"--spare" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:  # closed meanwhile
        return ""
