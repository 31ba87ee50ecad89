"""A newer release migrates the database under a node that runs: whether that node can go on."""

from __future__ import annotations

from shardd import __version__
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.queue.migrate import load_migrations, why_not

log = get_logger(__name__)


class SchemaWatch:
    """Compares the migrations again whenever there are more of them.

    A newer release refuses to apply those on which a live node cannot run. But it does not see one that is cut off from the
    database, nor one that starts at that moment.
    """

    def __init__(self, database: Database, release: str = __version__) -> None:
        self._database = database
        self._release = release
        # As of now: while this process runs, an upgrade replaces the files.
        self._own = load_migrations()
        self._known = len(self._own)

    async def why_not(self, migrations: int) -> str | None:
        """Why this release cannot run on a database with so many migrations; None: it can. Raises DatabaseError."""
        if migrations <= self._known:
            return None
        why = await why_not(self._database, self._own, self._release)
        if why is None:
            self._known = migrations
            log.info("a newer release has migrated the database", action="migrate", migrations=migrations)
        return why
