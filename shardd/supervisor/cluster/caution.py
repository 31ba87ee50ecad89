"""When leases of other nodes cannot be judged by the database's clock, so that none of them is taken for a while.

A lease expires by that clock, and its holder counts on its own. If the database's clock jumps forward, or another server with the
leases of a moment ago takes over, a lease may seem to be over while its holder still relies on it. A lease's time later the
holder has renewed it, or has stopped.
"""

from __future__ import annotations

from shardd.clock import boot_now
from shardd.logs import get_logger
from shardd.postgres.servers import Identity

log = get_logger(__name__)


class Caution:
    """Compares, from look to look, the database's clock with the host's, and the server with the one before."""

    def __init__(self, ttl: float, tolerance: float, server: Identity | None) -> None:
        """`tolerance`: seconds by which the database's clock may jump; `server`: the last one of an earlier supervisor."""
        self.until = 0.0
        """On `shardd.clock`."""
        self._ttl = ttl
        self._tolerance = tolerance
        self._server = server
        self._ahead: float | None = None  # how far the database's clock was ahead of the host's, at most

    def advised(self) -> bool:
        """Whether another node may rely on a lease that the database calls expired, or does not know."""
        return boot_now() < self.until

    def look(self, database_time: float, asked_at: float, server: Identity | None) -> None:
        """The database's clock and server now; `asked_at`: on `shardd.clock`."""
        ahead = database_time - boot_now()
        why = None
        if self._ahead is not None and ahead > self._ahead + self._tolerance:
            why = f"the database's clock has jumped forward by at least {ahead - self._ahead:.1f} s"
        before = self._server
        if before is not None and server is not None and server.cluster == before.cluster and server != before:
            why = "another server has taken over"
        if why is not None:
            self.until = boot_now() + self._ttl
            log.warning("no lease of another node is taken for now", action="lease", reason=why, seconds=self._ttl)
        self._ahead, self._server = database_time - asked_at, server or self._server
