"""What the server of the session store has to give, and how a PgBouncer reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardd.pgbouncer import PgBouncer, find_program
from shardd.pgbouncer.ini import MOST_QUERY, connect_query
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.server import StoreServer, search_path_through
from tests.support.servers import PGBOUNCER, Server

OURS = "shardd/test/sessions"


@pytest.fixture
async def store(tcp_server: Server) -> AsyncIterator[StoreServer]:
    store = StoreServer(make_conninfo(sessions_dsn(tcp_server.dsn()), application_name=OURS))
    yield store
    await store.close()


async def free(store: StoreServer) -> int:
    return await store.free_connections([OURS])


async def test_the_tightest_limit_counts_less_what_others_hold(tcp_server: Server, store: StoreServer) -> None:
    """100 connections, of which 3 are for superusers, and the store's own connection, whose name is not ours."""
    assert await free(store) == 96
    # One connection for all changes: the backend of one that was closed can still be counted for a moment.
    admin = psycopg.connect(tcp_server.dsn("postgres", "postgres"), autocommit=True)
    held = [admin]
    assert await free(store) == 95
    held.append(psycopg.connect(tcp_server.dsn(), application_name=OURS))
    assert await free(store) == 95
    admin.execute("ALTER DATABASE shardd CONNECTION LIMIT 50")
    assert await free(store) == 49
    admin.execute("ALTER ROLE shardd CONNECTION LIMIT 30")
    assert await free(store) == 29
    held.append(psycopg.connect(tcp_server.dsn(), application_name="another program"))
    assert await free(store) == 28
    admin.execute("ALTER ROLE shardd SUPERUSER")
    assert await free(store) == 94
    for connection in held:
        connection.close()


async def test_what_the_dsn_and_the_role_set_reaches_the_target(tcp_server: Server, store: StoreServer) -> None:
    tcp_server.execute("ALTER ROLE shardd SET enable_seqscan = off")
    tcp_server.execute("ALTER ROLE shardd SET statement_timeout = 1")
    tcp_server.execute("ALTER ROLE shardd SET search_path = public")
    target = await store.target()
    assert (target.host, target.port, target.database, target.user) == (
        "127.0.0.1",
        tcp_server.port,
        "shardd",
        "shardd",
    )
    assert target.settings["search_path"] == "shardd_sessions"
    assert (target.settings["enable_seqscan"], target.settings["statement_timeout"]) == ("on", "30000")
    assert "enable_sort" not in target.settings, "it is on anyway, and there is little room"
    assert len(connect_query(target.settings)) < MOST_QUERY
    assert target == await store.target()


async def test_the_store_is_found_through_it(
    tcp_server: Server, store: StoreServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pooler = PgBouncer(find_program(PGBOUNCER), tmp_path_factory.mktemp("state"))
    await pooler.start(await store.target(), servers=2)
    try:
        assert await search_path_through(pooler.dsn) == "shardd_sessions"
    finally:
        await pooler.close()
