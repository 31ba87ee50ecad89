"""Where WhatsApp sessions are stored, and that the store is ready before a worker needs it."""

from __future__ import annotations

from shardd.config import Config
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.supervisor.lines import Lines
from shardd.transports.whatsapp.dsn import sessions_dsn
from shardd.transports.whatsapp.store_setup import prepare_store

log = get_logger(__name__)


def sessions_dsn_of(config: Config, dsn: str) -> str:
    """The configured store, else a schema of its own in the daemon's database (`dsn`)."""
    configured = config.database.sessions_dsn if config.database else None
    return configured or sessions_dsn(dsn)


async def prepare_sessions(config: Config, lines: Lines, store: str) -> str | None:
    """Make the store's tables if a device may need them; a remark for `status` when that cannot be done.

    A machine without WhatsApp devices need not have what the library needs, and one whose library cannot be loaded
    still serves its other devices.
    """
    if not any(line.device.transport == "whatsapp" for line in lines.by_id.values()):
        return None
    try:
        await prepare_store(store, pgbouncer=config.transports.whatsapp.pgbouncer)
    except DatabaseError as error:
        log.error("WhatsApp devices cannot send", action="sessions", error=str(error))
        return f"WhatsApp devices cannot send: {error}"
    return None
