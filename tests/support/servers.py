"""Real PostgreSQL servers on loopback ports, with standbys, and real PgBouncers in front of them.

They trust every login, and do not flush to disk, because no test simulates a power failure.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from shardd.embedded.binaries import find_binaries
from shardd.embedded.home import Home

PGBOUNCER = os.environ.get("SHARDD_PGBOUNCER") or shutil.which(
    "pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
)
PATIENCE = 30.0


def free_port() -> int:
    """One that the system gives to no outgoing connection meanwhile."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, lowest)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens. Raises AssertionError with its output if it ends."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    process.kill()
    output, _ = process.communicate()
    raise AssertionError(output.decode(errors="replace"))


@dataclass
class Server:
    """One PostgreSQL; `data` is in a folder of its account."""

    home: Home
    data: Path
    port: int = field(default_factory=free_port)
    settings: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def programs(self) -> Path:
        return find_binaries(self.home).folder

    def dsn(self, database: str = "shardd", user: str = "shardd") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def make(self, *options: str) -> None:
        """initdb; the superuser is `postgres`."""
        self._run(
            *("initdb", "--pgdata", str(self.data), "--auth=trust", "--username=postgres", "--no-sync"),
            *(options or ("--encoding=UTF8", "--no-locale")),
        )

    def start(self, *, wait: bool = True) -> None:
        settings = {"fsync": "off", "max_wal_senders": "5", "wal_keep_size": "256MB", **self.settings}
        self.process = self.home.account.spawn(
            [
                *("/usr/bin/env", *(f"{name}={value}" for name, value in self.environ.items())),
                *(str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port), "-k", ""),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if wait:
            wait_for_port(self.port, self.process)
            self._wait_ready()

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Fast shutdown by default; SIGQUIT: immediately, as in a crash."""
        if self.process is not None:
            self.process.send_signal(signum)
            self.process.communicate(timeout=PATIENCE)
            self.process = None

    def execute(self, statement: str, *params: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement as superuser."""
        with psycopg.connect(self.dsn(database, "postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def make_standby(self, data: Path) -> Server:
        """A streaming standby of this server, which is stopped during the copy; both are running afterwards."""
        running = self.process is not None
        self.stop()
        status, said = self.home.account.run(["/usr/bin/env", "cp", "-a", str(self.data), str(data)])
        assert status == 0, said
        standby = Server(self.home, data)
        standby.follow(self)
        if running:
            self.start()
        standby.start()
        return standby

    def follow(self, primary: Server) -> None:
        """Become the standby of another server at the next start."""
        self.home.account.write(self.data / "standby.signal", "")
        conninfo = f"host=127.0.0.1 port={primary.port} user=postgres sslmode=disable"
        # Where ALTER SYSTEM can change it.
        self.home.account.write(self.data / "postgresql.auto.conf", f"primary_conninfo = '{conninfo}'\n")
        self.settings = {**self.settings, "recovery_target_timeline": "latest"}

    def promote(self) -> None:
        assert self.execute("SELECT pg_promote(true, 30)") == [(True,)]

    def stop_following(self) -> None:
        """Lag behind from now on: what the primary writes later never arrives."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + PATIENCE
        while self.execute("SELECT FROM pg_stat_wal_receiver"):
            assert time.monotonic() < end, "the standby still follows"
            time.sleep(0.02)

    def wait_caught_up(self, primary: Server) -> None:
        """Wait until this standby has replayed everything that the primary has written so far."""
        ((written,),) = primary.execute("SELECT pg_current_wal_lsn()::text")
        end = time.monotonic() + PATIENCE
        while self.execute("SELECT coalesce(pg_last_wal_replay_lsn() >= %s::pg_lsn, false)", written) != [(True,)]:
            assert time.monotonic() < end, "the standby does not follow"
            time.sleep(0.02)

    def _wait_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                return

    def _run(self, program: str, *arguments: str) -> None:
        status, said = self.home.account.run([str(self.programs / program), *arguments])
        assert status == 0, said


@dataclass
class Pooler:
    """A PgBouncer in front of a server; `mode`: session, transaction or statement."""

    home: Home
    server: Server
    mode: str
    database: str = "shardd"
    options: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def dsn(self, user: str = "shardd") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{self.database}?sslmode=disable"

    def start(self) -> None:
        assert PGBOUNCER is not None, "needs pgbouncer: apt-get install pgbouncer, or ./scripts/test as root"
        options = {"pool_mode": self.mode, "auth_type": "any", "listen_addr": "127.0.0.1", "listen_port": self.port}
        options |= {"unix_socket_dir": "", "default_pool_size": 20, **self.options}
        ini = self.home.folder / f"pgbouncer-{self.port}.ini"
        lines = [f"{name} = {value}" for name, value in options.items()]
        place = f"host=127.0.0.1 port={self.server.port} dbname={self.database} user=shardd"
        self.home.account.write(
            ini, "\n".join(["[databases]", f"{self.database} = {place}", "[pgbouncer]", *lines, ""])
        )
        self.process = self.home.account.spawn(
            [PGBOUNCER, str(ini)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_for_port(self.port, self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=PATIENCE)
            self.process = None
