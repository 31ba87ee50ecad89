"""Several hosts that start together on a database without a session store."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import make_lock
from shardd.transports.whatsapp.sessions.store import connect
from tests.fixtures.postgres import Cluster

HOSTS = 12


async def test_one_of_many_that_start_together_makes_the_schema_and_none_fails(cluster: Cluster) -> None:
    name = cluster.create_database()
    dsn = sessions_dsn(cluster.dsn(name))
    async with AsyncExitStack() as connections:
        hosts = [await connections.enter_async_context(await connect(dsn, timeout=10)) for _ in range(HOSTS)]
        await asyncio.gather(*(make_lock(host) for host in hosts))
        row = await (
            await hosts[0].execute("SELECT to_regclass('shardd_setup')::text AS found, current_schema")
        ).fetchone()
    assert row == {"found": "shardd_setup", "current_schema": "shardd_sessions"}
    cluster.drop_database(name)
