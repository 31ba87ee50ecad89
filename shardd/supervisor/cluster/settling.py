"""After a fail-over, no shard changes hands before every node has settled again what it had sent.

A standby that lagged behind has jobs queued whose messages were sent. The node that sent them knows them, and no other does. So
each node settles them when it finds that the server writes another timeline, and reports that by its next renewal. Until all
have done so, none takes a shard, nor gives a device to a job of a group. A node that is silent for a lease's time is dead, and
what it knows is out of reach until it starts again.

A node goes on with the shards whose leases the new server knows: all that earlier holders had written was there before these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from shardd.clock import boot_now
from shardd.logs import get_logger
from shardd.postgres.servers import Identity
from shardd.queue.leases import Node
from shardd.tasks import do_nothing

log = get_logger(__name__)


class Settling:
    """Which server this node has settled on, and whether all others have, too."""

    def __init__(self, node_id: str, ttl: float, was: Identity | None) -> None:
        """`was`: the server that an earlier supervisor on this folder knew."""
        self._node_id = node_id
        self._ttl = ttl
        self._seen = was
        self._on: Identity | None = None
        self._changed_at = float("-inf")
        self._awaited: set[str] = set()
        """Nodes that were alive when the server changed."""
        self.settle: Callable[[], Awaitable[None]] = do_nothing
        """Settles again what this node has sent. Raises DatabaseError."""
        self.may_settle = True
        """False during a start, until what earlier supervisors left is known."""

    @property
    def timeline(self) -> int | None:
        """The timeline on which this node has settled; None: on none yet."""
        return None if self._on is None else self._on.timeline

    async def look(self, server: Identity | None, nodes: Iterable[Node]) -> bool:
        """Settle again if the server has changed; returns whether the other nodes wait to be told. Raises DatabaseError."""
        self._notice(server, nodes)
        if server is None or server == self._on or not self.may_settle:
            return False
        await self.settle()
        self._on = server
        return True

    def is_over(self, server: Identity | None, nodes: Iterable[Node]) -> bool:
        """Whether every node that may know of sends has settled them on this server."""
        others = self._notice(server, nodes)
        if server is None:
            return True
        settled = {node.id for node in others if node.timeline == server.timeline}
        if boot_now() < self._changed_at + self._ttl:
            return self._awaited <= settled
        return all(node.id in settled or node.timeline is None for node in others)

    def _notice(self, server: Identity | None, nodes: Iterable[Node]) -> list[Node]:
        """Returns the other nodes."""
        others = [node for node in nodes if node.id != self._node_id]
        if server is not None and server != self._seen:
            if self._seen is not None:
                log.warning("the server writes another timeline", action="failover", timeline=server.timeline)
                self._changed_at = boot_now()
                self._awaited = {node.id for node in others}
            self._seen = server
        return others
