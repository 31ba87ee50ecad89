"""A PgBouncer with the shipped config in front of the benchmark's PostgreSQL."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchlib.cluster import Cluster

SHIPPED: Final = Path(__file__).resolve().parents[2] / "config" / "pgbouncer.ini"
PROGRAM: Final = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
DEADLINE: Final = 30.0


@asynccontextmanager
async def pooled(cluster: Cluster, database: str) -> AsyncIterator[str]:
    """The value of `database.sessions_dsn` for this database, through PgBouncer."""
    assert PROGRAM is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    text = SHIPPED.read_text()
    home = cluster.open_to_own_account()
    for pattern, value in (
        (r"host=db\.example port=5432 dbname=shardd", f"host={home.folder} port=5432 dbname={database} user=shardd"),
        (r"listen_port = \d+", f"listen_port = {port}\nunix_socket_dir ="),
        (r"auth_type = \S+", "auth_type = any"),
        (r"auth_file = \S+", ""),
    ):
        text, count = re.subn(pattern, value, text)
        assert count == 1, f"{SHIPPED} has no {pattern}"
    ini = home.folder / "pgbouncer.ini"
    home.account.write(ini, text)
    with (cluster.folder / "pgbouncer.log").open("ab") as log:
        process = home.account.spawn([PROGRAM, str(ini)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(DEADLINE):
            while not await _listens(port):
                if process.poll() is not None:
                    raise RuntimeError(f"pgbouncer ended: {(cluster.folder / 'pgbouncer.log').read_text()}")
                await asyncio.sleep(0.02)
        yield f"postgresql://shardd@127.0.0.1:{port}/shardd_sessions?sslmode=disable"
    finally:
        process.kill()
        process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
