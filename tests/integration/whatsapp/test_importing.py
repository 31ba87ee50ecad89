from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from shardd.errors import DatabaseError
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.importing import import_sessions, move_session, plan_import
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.fixtures.postgres import Cluster
from tests.integration.whatsapp.host_process import HostProcess
from tests.support.daemon import Producer
from tests.support.facts import fact
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres


@pytest.fixture
async def foreign(empty_dsn: str) -> str:
    """Another program's store, in a database of its own, in its public schema."""
    await prepare_store(empty_dsn)
    return empty_dsn


async def test_sessions_come_over_with_all_their_rows_and_send(
    store: str, foreign: str, fresh_number: str, host: HostProcess, whatsapp: ServerProcess
) -> None:
    numbers = [str(int(fresh_number) + 800_000 + n) for n in range(3)]
    jids = seed_postgres(foreign, numbers)
    seed_postgres(store, numbers[2:])
    plan = await plan_import(foreign, store)
    assert [session.jid for session in plan.new] == jids[:2]
    assert [session.number for session in plan.present] == numbers[2:]
    assert plan.new[0].push_name == f"Device {numbers[0]}"
    assert await import_sessions(foreign, store, [session.jid for session in plan.new]) > 2
    assert (await plan_import(foreign, store)).new == ()
    for jid in jids[:2]:
        told = await host.send({"id": jid, "session": jid, "proxy": whatsapp.proxy_url()}, "+6281234567890", jid)
        assert "message_id" in told, told
    seen = await whatsapp.async_control.wait_messages(2, recipient="6281234567890")
    assert [message.text for message in seen] == jids[:2]


async def test_an_import_is_all_or_nothing(store: str, foreign: str, fresh_number: str) -> None:
    numbers = [str(int(fresh_number) + 900_000 + n) for n in range(2)]
    jids = seed_postgres(foreign, numbers)
    seed_postgres(store, numbers[1:])
    with pytest.raises(DatabaseError, match=r"nothing was imported: .*duplicate key"):
        await import_sessions(foreign, store, jids)
    assert [session.jid for session in (await plan_import(foreign, store)).new] == jids[:1]


@asynccontextmanager
async def nothing_more() -> AsyncIterator[None]:
    yield


async def test_a_session_that_moves_is_where_it_came_to_and_nowhere_else(
    store: str, foreign: str, fresh_number: str
) -> None:
    jid, other = seed_postgres(foreign, [fresh_number, str(int(fresh_number) + 700_000)])
    account = f"{fresh_number}@s.whatsapp.net"
    tokens = Producer(foreign)
    tokens.execute(
        "INSERT INTO whatsmeow_privacy_tokens (our_jid, their_jid, token, timestamp) VALUES (%s, 'x', 't', 1)", account
    )
    before = rows_of(foreign, jid, account)
    assert set(before) == {"whatsmeow_device", "whatsmeow_pre_keys", "whatsmeow_privacy_tokens"}
    for _ in range(2):  # again, after an answer that was lost, or back
        assert await move_session(foreign, store, jid, nothing_more)
        assert not await move_session(foreign, store, jid, nothing_more)
        assert (rows_of(store, jid, account), rows_of(foreign, jid, account)) == (before, {})
        foreign, store = store, foreign
    assert [session.jid for session in (await plan_import(foreign, store)).new] == [jid, other]


async def test_a_session_that_is_changed_while_it_moves_stays(store: str, foreign: str, fresh_number: str) -> None:
    """A client of it is open, which nobody knew: what it writes from now on would be missing where the session came to."""
    (jid,) = seed_postgres(foreign, [fresh_number])

    @asynccontextmanager
    async def a_client_writes() -> AsyncIterator[None]:
        Producer(foreign).execute(
            "INSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES (%s, 'x', 'x')", jid
        )
        yield

    with pytest.raises(DatabaseError, match="so a client of it is open: nothing was deleted"):
        await move_session(foreign, store, jid, a_client_writes)
    assert "whatsmeow_sessions" in rows_of(foreign, jid)
    assert await move_session(foreign, store, jid, nothing_more)
    assert "whatsmeow_sessions" in rows_of(store, jid)


def rows_of(dsn: str, *owners: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of a session or its account, by the library's tables."""
    tables = Producer(dsn).execute(
        "SELECT table_name, max(column_name) FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND column_name IN ('jid', 'our_jid') AND starts_with(table_name, 'whatsmeow_') GROUP BY 1"
    )
    found = {
        name: Producer(dsn).execute(f"SELECT t::text FROM {name} t WHERE {column} = ANY (%s) ORDER BY 1", list(owners))
        for name, column in tables
    }
    return {name: rows for name, rows in found.items() if rows}


async def test_a_database_without_sessions_is_named(store: str, cluster: Cluster) -> None:
    name = cluster.create_database()
    with pytest.raises(
        DatabaseError, match=r"the store to import from has no table whatsmeow_device: name the database"
    ):
        await plan_import(cluster.dsn(name), store)
    cluster.drop_database(name)


@fact("GetAllDevices makes the tables of the store", "sessions/setup.py", "sessions/sql/store_setup.sql")
async def test_the_store_is_made_once_by_many_and_keeps_what_it_has(empty_dsn: str, fresh_number: str) -> None:
    dsn = sessions_dsn(empty_dsn)
    await prepare_store(dsn)
    seed_postgres(dsn, [fresh_number])
    await prepare_store(dsn)
    with psycopg.connect(dsn) as connection:
        (count,) = connection.execute("SELECT count(*) FROM shardd_sessions.whatsmeow_device").fetchone() or (0,)
    assert count == 1


async def test_a_store_that_cannot_be_made_says_why() -> None:
    with pytest.raises(
        DatabaseError, match=r"the session store cannot be prepared: nothing answers at 127\.0\.0\.1:1: "
    ):
        await prepare_store("postgresql://me@127.0.0.1:1/nowhere")
