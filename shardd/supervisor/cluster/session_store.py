"""The store of WhatsApp sessions: where it is, and that it is ready before a worker needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shardd.config import Config
from shardd.config.transports import TRANSPORTS
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.postgres.dsn import complete_dsn
from shardd.queue.database import Database
from shardd.queue.server_limits import ServerLimits
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import SessionStore

log = get_logger(__name__)

PER_CLIENT: Final = 2
"""Connections that the library keeps to the store for each open client."""


def sessions_dsn_of(config: Config, dsn: str) -> str:
    """The configured store, else a schema in the daemon's database (`dsn`); complete, so that any process can use it."""
    configured = config.database.sessions_dsn if config.database else None
    return complete_dsn(configured) if configured else sessions_dsn(complete_dsn(dsn))


async def numbers_of(dsn: str, addresses: Sequence[str]) -> dict[str, str]:
    """The numbers of these hidden ids, as far as sessions know them; asked seldom. Raises DatabaseError."""
    store = SessionStore(dsn)
    try:
        return await store.numbers_of(addresses)
    finally:
        await store.close()


async def prepare_sessions(config: Config, scheduler: Scheduler, database: Database, store: str) -> list[str]:
    """Create the store's tables if a device may need them; returns notes for the status about what prevents sending.

    A host without such devices need not have what the library needs, and one whose library cannot be loaded still serves its
    other devices. Raises DatabaseError when `database` does not answer.
    """
    with_sessions = {name for name, definition in TRANSPORTS.items() if definition.has_sessions}
    devices = sum(queue.device.transport in with_sessions for queue in scheduler.queues.values())
    if devices == 0:
        return []
    settings = config.transports.whatsapp
    try:
        await prepare_store(store, pgbouncer=settings.pgbouncer)
    except DatabaseError as error:
        log.error("WhatsApp devices cannot send", action="sessions", error=str(error))
        return [f"WhatsApp devices cannot send: {error}"]
    if settings.pgbouncer or (config.database and config.database.sessions_dsn):
        return []
    limit = await ServerLimits(database).connection_room()
    wanted = PER_CLIENT * min(devices, config.shards * settings.max_open_clients)
    if wanted <= limit:
        return []
    text = f"{devices} WhatsApp devices may take up to {wanted} connections to PostgreSQL, which allows {limit}"
    return [f"{text}: put PgBouncer between (config/pgbouncer.ini), or lower transports.whatsapp.max_open_clients"]
