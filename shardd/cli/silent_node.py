"""What the database knows of a node whose control socket does not answer: it may be alive, and only out of reach."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shardd.config import Config
from shardd.errors import DatabaseError, NotRunningError, UnreachableError

PATIENCE = 10.0
"""Seconds that a person waits for the database's answer."""


@asynccontextmanager
async def explaining(config: Config) -> AsyncIterator[None]:
    """Around what asks the daemon. Raises UnreachableError instead of NotRunningError when the node is alive on this host."""
    try:
        yield
    except NotRunningError:
        with contextlib.suppress(DatabaseError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await _look(config)
        raise


async def _look(config: Config) -> None:
    if config.database is None:
        return
    # Only for a daemon that does not answer: every other command starts without them.
    from shardd.cli.reach import command_pool  # noqa: PLC0415
    from shardd.queue.leases import find_registration  # noqa: PLC0415

    async with command_pool(config, config.database.dsn) as database:
        found = await find_registration(database, config.node, config.lease.ttl)
    if found is None or found.pid is None or not _runs_here(found.pid):
        return
    shards = "serves no shards" if not found.shards else f"holds {found.shards} shards"
    raise UnreachableError(
        f"node {config.node} is alive (pid {found.pid}, it {shards}, the database heard of it {found.age:.0f} s ago), but no "
        f"command reaches it: {_why(config)}"
    )


def _why(config: Config) -> str:
    place, stop = config.control_socket, "stop it (systemctl stop shardd, or kill its pid) and start it again"
    if not (config.state_dir / "supervisor.lock").exists():
        return (
            f"its state folder {config.state_dir} was deleted or replaced, and {place} with it: put it back, or {stop}"
        )
    try:
        mode = place.lstat().st_mode
    except OSError:
        return f"its control socket {place} is gone; it is made anew within seconds, or its log says why not"
    if not stat.S_ISSOCK(mode):
        return (
            f"something that is no socket stands at {place}: move it away, and the socket is made anew within seconds"
        )
    return f"nobody listens at {place}: if that lasts for more than some seconds, {stop}"


def _runs_here(pid: int) -> bool:
    """Whether this is a supervisor's process on this host: after a crash the number may be gone, or somebody else's."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"start" in words and any(b"shardd" in word for word in words)
