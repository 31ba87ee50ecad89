"""Requests to this node's daemon, with the reason when no command reaches it although it is alive."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from socket import gethostname
from typing import Any, Final

from shardd.cli.processes import is_start
from shardd.config import Config
from shardd.control_client import TIMEOUT, ask
from shardd.errors import DatabaseError, NotRunningError, UnreachableError

DATABASE_TIMEOUT: Final = 10.0
"""Seconds for the database to report on a node that does not answer."""


async def ask_daemon(config: Config, method: str, path: str, *, timeout: float = TIMEOUT) -> Any:
    """As `ask`. Raises UnreachableError instead of NotRunningError when the node is alive on this host."""
    try:
        return await ask(config.control_socket, method, path, timeout=timeout)
    except NotRunningError:
        with contextlib.suppress(DatabaseError, TimeoutError):
            async with asyncio.timeout(DATABASE_TIMEOUT):
                await _look_for_node(config)
        raise


async def _look_for_node(config: Config) -> None:
    """Raise UnreachableError when the database has heard from the node and its process runs on this host."""
    if config.database is None:
        return
    # Only for a daemon that does not answer: every other command starts without them.
    from shardd.cli.database import command_pool  # noqa: PLC0415
    from shardd.queue.leases import find_registration  # noqa: PLC0415

    async with command_pool(config, config.database.dsn) as database:
        found = await find_registration(database, config.node, gethostname(), config.lease.ttl)
    if found is None or found.pid is None or not is_start(found.pid):
        return
    shards = f"holds {found.shards} shards" if found.shards else "serves no shards"
    raise UnreachableError(
        f"node {config.node} is alive (pid {found.pid}, {shards}, last seen by the database {found.age:.0f} s ago), but no "
        f"command reaches it: {_why_unreachable(config)}"
    )


def _why_unreachable(config: Config) -> str:
    socket, stop = config.control_socket, "stop it (systemctl stop shardd, or kill its pid) and start it again"
    if not (config.state_dir / "supervisor.lock").exists():
        return (
            f"its state folder {config.state_dir} was deleted or replaced, and {socket} with it: put it back, or {stop}"
        )
    try:
        mode = socket.lstat().st_mode
    except OSError:
        return f"its control socket {socket} is gone; it is created again within seconds, or the log has the reason"
    if not stat.S_ISSOCK(mode):
        return f"{socket} is not a socket: move it away, and the socket is created again within seconds"
    return f"nothing listens at {socket}: if that lasts longer than a few seconds, {stop}"
