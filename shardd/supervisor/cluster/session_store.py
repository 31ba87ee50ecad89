"""The store of WhatsApp sessions: where it is, and that it is ready before a worker needs it."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.conninfo import make_conninfo

from shardd.config import Config
from shardd.config.transports import TRANSPORTS
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.postgres.dsn import complete_dsn
from shardd.supervisor.scheduling.scheduler import Scheduler
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import SessionStore

log = get_logger(__name__)


def sessions_dsn_of(config: Config, dsn: str) -> str:
    """The configured store, else a schema in the daemon's database (`dsn`); complete, so that any process can use it."""
    configured = config.database.sessions_dsn if config.database else None
    store = complete_dsn(configured) if configured else sessions_dsn(complete_dsn(dsn))
    return make_conninfo(store, application_name=library_name(config.node))


def library_name(node: str) -> str:
    """The application name of the library's connections to the store."""
    return f"shardd/{node}/sessions"


def devices_with_sessions(scheduler: Scheduler) -> int:
    """How many devices may need the store."""
    with_sessions = {name for name, definition in TRANSPORTS.items() if definition.has_sessions}
    return scheduler.census.count(lambda place: place.transport in with_sessions)


async def numbers_of(dsn: str, addresses: Sequence[str]) -> dict[str, str]:
    """The numbers of these hidden ids, as far as sessions know them; asked seldom. Raises DatabaseError."""
    store = SessionStore(dsn)
    try:
        return await store.numbers_of(addresses)
    finally:
        await store.close()


async def prepare_sessions(config: Config, scheduler: Scheduler, store: str) -> list[str]:
    """Create the store's tables if a device may need them; returns notes for the status about what prevents sending.

    A host without such devices need not have what the library needs, and one whose library cannot be loaded still serves its
    other devices.
    """
    if devices_with_sessions(scheduler) == 0:
        return []
    try:
        await prepare_store(store, pgbouncer=config.transports.whatsapp.pgbouncer)
    except DatabaseError as error:
        log.error("WhatsApp devices cannot send", action="sessions", error=str(error))
        return [f"WhatsApp devices cannot send: {error}"]
    return []
