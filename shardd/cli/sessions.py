"""What the commands about sessions have in common: the device, the two databases, and the client that a daemon may have open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from shardd.cli.control import ask
from shardd.cli.database import command_pool, reach_dsn
from shardd.config import Config
from shardd.errors import NotRunningError, UsageError
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.sessions import SessionAdmin
from shardd.supervisor.cluster.session_store import sessions_dsn_of

WHATSAPP: Final = "whatsapp"
CLOSE_GRACE: Final = 10.0
"""Seconds beyond the sending of one message in which a worker closes a client."""


@dataclass(frozen=True, slots=True)
class SessionContext:
    """Everything that a command about sessions works with."""

    config: Config
    database: Database
    store: str
    """The DSN of the session store."""

    @property
    def sessions(self) -> SessionAdmin:
        """Which session belongs to which device."""
        return SessionAdmin(self.database)

    @property
    def pgbouncer(self) -> bool:
        """Whether the store is reached through PgBouncer."""
        return self.config.transports.whatsapp.pgbouncer

    async def whatsapp_device(self, device_id: str) -> DeviceRow:
        """The device. Raises UsageError when there is none or it is no WhatsApp device."""
        found = await DeviceAdmin(self.database).find(ids=[device_id])
        if not found:
            raise UsageError(
                f"device {device_id} is unknown; add it first: shardd device add {device_id} --transport whatsapp"
            )
        if found[0].transport != WHATSAPP:
            raise UsageError(f"device {device_id} sends by {found[0].transport}: only whatsapp devices have a session")
        return found[0]

    def proxy_of(self, device: DeviceRow) -> str | None:
        """The proxy of the device's connections."""
        return device.proxy or self.config.transports.whatsapp.proxy

    async def close_client(self, device_id: str) -> None:
        """Have the daemon close the device's client, if a daemon runs and has one.

        Returns when no worker of this host uses a session other than the row's. Raises SharddError when that takes too long.
        """
        timeout = self.config.queue.send_timeout + CLOSE_GRACE
        with suppress(NotRunningError, UsageError):  # nobody has one open
            await ask(self.config.control_socket, "POST", f"/devices/{quote(device_id)}/close", timeout=timeout)


@asynccontextmanager
async def open_session_context(config: Config) -> AsyncGenerator[SessionContext]:
    """Reach the database. Raises DatabaseError."""
    async with (
        reach_dsn(config, make=False) as dsn,
        command_pool(config, dsn, connections=2) as database,  # one is kept by a pairing
    ):
        yield SessionContext(config, database, sessions_dsn_of(config, dsn))
