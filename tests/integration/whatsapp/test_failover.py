"""A session store with a standby: devices keep sending after its promotion, also with clients that were open."""

import asyncio
import signal
import socket
from typing import Any

import pytest

from shardd.errors import DatabaseError
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.integration.whatsapp.conftest import StartHost
from tests.support.servers import Server
from tests.whatsapp_server.launch import ServerProcess
from tests.whatsapp_server.seed import seed_postgres

RECIPIENT = "6281234567890"


def store_of(*ports: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return sessions_dsn(f"postgresql://shardd@{hosts}/shardd?sslmode=disable")


async def make_devices(server: Server, whatsapp: ServerProcess, first: int, count: int) -> list[dict[str, Any]]:
    store = store_of(server.port)
    await prepare_store(store)
    jids = seed_postgres(store, [str(first + number) for number in range(count)])
    return [{"id": jid, "session": jid, "proxy": whatsapp.proxy_url()} for jid in jids]


async def test_sessions_go_on_with_the_standby_that_is_promoted(
    tcp_server: Server, standby: Server, start_host: StartHost, whatsapp: ServerProcess, fresh_number: str
) -> None:
    devices = await make_devices(tcp_server, whatsapp, int(fresh_number) + 4_000_000, 2)
    await asyncio.to_thread(standby.wait_caught_up, tcp_server)
    host = await start_host(sessions_dsn=store_of(tcp_server.port, standby.port))
    assert "message_id" in await host.send(devices[0], RECIPIENT, "before")
    await asyncio.to_thread(standby.wait_caught_up, tcp_server)

    await asyncio.to_thread(tcp_server.stop, signal.SIGQUIT)
    await asyncio.to_thread(standby.promote)
    # The first has its client open, and writes to somebody new, which takes keys out of the store; the second is opened now.
    for device in devices:
        assert "message_id" in await host.send(device, "6281234567891", "after")
    assert (await host.ask("counts"))["connects"] == 2
    seen = await whatsapp.async_control.wait_messages(2, recipient="6281234567891")
    assert [message.text for message in seen] == ["after", "after"]


async def test_the_library_is_led_to_the_server_that_answers(
    tcp_server: Server, start_host: StartHost, whatsapp: ServerProcess, fresh_number: str
) -> None:
    """By itself it would wait for the first host for as long as the DSN says."""
    (device,) = await make_devices(tcp_server, whatsapp, int(fresh_number) + 5_000_000, 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        store = store_of(mute.getsockname()[1], tcp_server.port) + " connect_timeout=3600"
        host = await start_host(sessions_dsn=store)
        assert "message_id" in await host.send(device, RECIPIENT)


async def test_a_store_in_another_encoding_is_refused_in_words(tcp_server: Server) -> None:
    tcp_server.execute(
        "CREATE DATABASE plain TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' OWNER shardd"
    )
    with pytest.raises(DatabaseError, match=r"\(database plain, user shardd\) is stored in SQL_ASCII.*createdb --enc"):
        await prepare_store(tcp_server.dsn("plain"))


async def test_settings_of_the_role_do_not_reach_the_store(
    tcp_server: Server, start_host: StartHost, whatsapp: ServerProcess, fresh_number: str
) -> None:
    (device,) = await make_devices(tcp_server, whatsapp, int(fresh_number) + 6_000_000, 1)
    hostile = {
        "bytea_output": "escape",
        "client_encoding": "LATIN1",
        "datestyle": "German",
        "default_transaction_isolation": "serializable",
        "exit_on_error": "on",
        "lock_timeout": "1",
        "search_path": "public",
        "standard_conforming_strings": "off",
        # Until ours is set this one holds, also on a slow machine.
        "statement_timeout": "500",
        "synchronous_commit": "off",
    }
    for name, value in hostile.items():
        tcp_server.execute(f"ALTER ROLE shardd SET {name} TO '{value}'")
    host = await start_host(sessions_dsn=store_of(tcp_server.port))
    assert "message_id" in await host.send(device, RECIPIENT)
