"""The supervisor's connection pools: work that must never wait for other work has a pool of its own.

A statement that waits for a locked table holds its connection until it times out, so neither the leases nor the queue share
connections with counting, purging and reporting.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from shardd.config import Config
from shardd.postgres.servers import Identity
from shardd.queue.database import Database


@dataclass(frozen=True, slots=True)
class Pools:
    """One database, six pools."""

    leases: Database
    queue: Database
    """Claims, settles and finds jobs: statements that are planned as index probes."""
    general: Database
    """Everything else: counting, purging, reporting."""
    watch: Database
    """One connection, to see what uses up the server when no other can be made."""
    opt_outs: Database
    """Stores opt-outs one by one: one that a producer's open transaction blocks gives way to the next."""
    incoming: Database
    """Stores incoming messages, likewise."""


INBOUND_LOCK_TIMEOUT: Final = 0.25
"""Seconds that an opt-out or a message waits for another transaction: only meanwhile can its session be seen."""


@asynccontextmanager
async def open_pools(dsn: str, config: Config, last_server: Identity | None = None) -> AsyncGenerator[Pools]:
    """Open the pools; they are closed at the end of the block. Raises DatabaseError.

    `last_server`: the primary of an earlier supervisor.
    """

    def pool(max_size: int, *, index_plans: bool = False, lock_timeout: float = 0.0) -> Database:
        return Database(
            dsn,
            application_name=f"shardd/{config.node}",
            connect_timeout=config.connect_timeout,
            statement_timeout=config.statement_timeout,
            max_size=max_size,
            index_plans=index_plans,
            lock_timeout=lock_timeout,
            last_server=last_server,
        )

    pools = Pools(
        leases=pool(1),
        queue=pool(6, index_plans=True),
        general=pool(4),
        watch=pool(1),
        opt_outs=pool(2, lock_timeout=INBOUND_LOCK_TIMEOUT),
        incoming=pool(2, lock_timeout=INBOUND_LOCK_TIMEOUT),
    )
    async with AsyncExitStack() as stack:
        for database in (pools.incoming, pools.opt_outs, pools.watch, pools.general, pools.queue, pools.leases):
            await stack.enter_async_context(database)
        yield pools
