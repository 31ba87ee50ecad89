"""The PgBouncer of the sessions: the real program with the shipped config, led to whichever server is the primary."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

from shardd.embedded.home import Home
from stormlib.link import Link
from tests.support.servers import PGBOUNCER, free_port, wait_for_port

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "pgbouncer.ini"


class SessionPooler:
    """Can be killed and started again on the same port."""

    def __init__(self, home: Home, link: Link) -> None:
        """`link`: leads to the primary."""
        self.link = link
        self._home = home
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        text = SHIPPED.read_text()
        for pattern, value in (
            (r"host=db\.example port=5432 dbname=shardd", f"host=127.0.0.1 port={link.port} dbname=shardd user=shardd"),
            (r"listen_port = \d+", f"listen_port = {self.port}\nunix_socket_dir ="),
            (r"auth_type = \S+", "auth_type = any"),
            (r"auth_file = \S+", f"logfile = {home.folder}/pgbouncer.log"),
        ):
            text, count = re.subn(pattern, value, text)
            assert count == 1, f"{SHIPPED} has no {pattern}"
        self._ini = home.folder / "pgbouncer.ini"
        home.account.write(self._ini, text)

    @staticmethod
    def dsn(link: Link) -> str:
        """The value of `database.sessions_dsn`, for what reaches it by a link."""
        return f"postgresql://shardd@{link.host}:{link.port}/shardd_sessions?sslmode=disable"

    async def start(self) -> None:
        """Start it and wait until it listens."""
        assert PGBOUNCER is not None, "needs pgbouncer: apt-get install pgbouncer"
        null = subprocess.DEVNULL
        self._process = self._home.account.spawn(
            [PGBOUNCER, "--quiet", str(self._ini)], stdin=null, stdout=null, stderr=subprocess.PIPE
        )
        await asyncio.to_thread(wait_for_port, self.port, self._process)

    async def follow(self, port: int) -> None:
        """Lead it to another server."""
        self.link.target = port
        await self.link.cut()
        await self.link.repair()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
