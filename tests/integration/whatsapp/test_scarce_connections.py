"""While PostgreSQL has few connections: closed clients count until the server has ended theirs."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
from psycopg.conninfo import make_conninfo

from tests.integration.whatsapp.conftest import MakeDevice, StartHost

CLIENTS = 2
OURS = "test/scarce"
STORE = 1
"""Connections for questions about sessions."""
AT_ONCE = 1
"""More than two idle ones, that a client may open for a moment (Go's database/sql keeps two)."""


async def test_clients_that_follow_each_other_do_not_pile_up_connections(
    store: str, start_host: StartHost, make_device: MakeDevice, fresh_number: str
) -> None:
    devices = [make_device(str(int(fresh_number) + 7_000_000 + number)) for number in range(10)]
    host = await start_host(
        sessions_dsn=make_conninfo(store, application_name=OURS), clients_with_connections=CLIENTS, connect_timeout=60.0
    )
    most = 0

    async def watch() -> None:
        nonlocal most
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        async with await psycopg.AsyncConnection.connect(store, autocommit=True) as connection:
            while True:
                (count,) = await (await connection.execute(query, [OURS])).fetchone() or (0,)
                most = max(most, count)
                await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    told = await asyncio.gather(*(host.send(device, f"+62812347{n:05}") for n, device in enumerate(devices)))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert all("message_id" in answer for answer in told), told
    assert (await host.ask("counts"))["connects"] == len(devices)
    assert 0 < most <= CLIENTS * (2 + AT_ONCE) + STORE
