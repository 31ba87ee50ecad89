"""Which server a DSN with several hosts selects, through promotions, unreachable hosts and servers that still run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from shardd.errors import DatabaseError
from shardd.postgres.dsn import split_hosts
from shardd.postgres.servers import Connection, Servers, Terms
from shardd.queue.database import Database, ListenEvent
from tests.support.servers import Server

HANG = 30.0
TERMS = Terms(application_name="shardd/test", connect_timeout=10.0, statement_timeout=10.0)


def dsn_of(*ports: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://shardd@{hosts}/shardd?sslmode=disable"


def port_of(connection: Connection) -> int:
    return connection.info.port


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port where connections come about, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yield mute.getsockname()[1]


class Address:
    """A port that leads to one server now, and may lead to another one later, as a virtual IP address does."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Address]:
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listening.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("primary_first", [True, False])
async def test_the_primary_is_found_wherever_it_stands(
    primary_first: bool, tcp_server: Server, standby: Server
) -> None:
    ports = (tcp_server.port, standby.port) if primary_first else (standby.port, tcp_server.port)
    servers = Servers(dsn_of(*ports), TERMS)
    async with await servers.connect() as connection:
        assert port_of(connection) == tcp_server.port
    assert split_hosts(servers.dsn)[0] == split_hosts(dsn_of(tcp_server.port, 1))[0]


async def test_a_host_that_swallows_everything_delays_nobody(tcp_server: Server) -> None:
    with black_hole() as hole:
        servers = Servers(
            dsn_of(hole, tcp_server.port),
            Terms(application_name="shardd/test", connect_timeout=3600.0, statement_timeout=10.0),
        )
        async with asyncio.timeout(HANG), await servers.connect() as connection:
            assert port_of(connection) == tcp_server.port


async def test_why_no_host_serves_is_reported_of_each(tcp_server: Server, standby: Server) -> None:
    tcp_server.stop()
    with pytest.raises(DatabaseError) as caught:
        await Servers(dsn_of(tcp_server.port, standby.port), TERMS).connect()
    assert f"nothing answers at 127.0.0.1:{tcp_server.port}" in str(caught.value)
    assert f"127.0.0.1:{standby.port} (database shardd, user shardd) is read-only" in str(caught.value)


async def test_a_standby_alone_is_refused(tcp_server: Server, standby: Server) -> None:
    for dsn in (standby.dsn(), standby.dsn() + "&target_session_attrs=any"):
        with pytest.raises(DatabaseError, match="is read-only: name the primary server in the DSN"):
            await Servers(dsn, TERMS).connect()


async def test_a_promoted_standby_is_used_and_the_old_primary_refused_from_then_on(
    tcp_server: Server, standby: Server
) -> None:
    """Both can be written to: nobody stopped the old one."""
    standby.wait_caught_up(tcp_server)
    reasons: list[str] = []
    servers = Servers(dsn_of(tcp_server.port, standby.port), TERMS, on_change=reasons.append)
    async with await servers.connect() as old:
        assert port_of(old) == tcp_server.port
        await asyncio.to_thread(standby.promote)
        # Whichever answers first: the other one's answer settles it.
        async with asyncio.timeout(HANG):
            while servers.is_current(old):
                await (await servers.connect()).close()
        for _ in range(3):
            async with await servers.connect() as connection:
                assert port_of(connection) == standby.port
        assert reasons == [f"127.0.0.1:{standby.port} is now the primary (timeline 2 after 1)"]
        with pytest.raises(DatabaseError, match=r"was replaced by another server .* stop it"):
            await servers.check(old)


async def test_connections_to_a_server_that_was_replaced_behind_its_address_are_closed(
    tcp_server: Server, standby: Server
) -> None:
    standby.wait_caught_up(tcp_server)
    async with (
        Address(tcp_server).open() as address,
        Database(dsn_of(address.port), max_size=2) as database,
        asyncio.timeout(HANG),
    ):
        # One connection, and no second that was asked for while the first was on its way.
        await database.pool.wait()
        events = database.listen("greetings")
        assert await anext(events) == ListenEvent("connected")
        async with database.connection(timeout=HANG) as first:
            await asyncio.to_thread(standby.promote)
            address.server = standby
            # The pool makes another connection for this.
            async with database.connection() as second:
                cursor = await second.execute("SHOW port")
                assert await cursor.fetchone() == (str(standby.port),)
            assert (await anext(events)).kind == "lost"
            assert await anext(events) == ListenEvent("connected")
            assert not first.closed
        assert first.closed
        async with database.connection() as one, database.connection() as other:
            for connection in (one, other):
                assert await (await connection.execute("SHOW port")).fetchone() == (str(standby.port),)
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_server_that_became_a_standby_is_left(tcp_server: Server, standby: Server) -> None:
    """A switchover: the roles are exchanged, and both answer at their addresses as before."""
    standby.wait_caught_up(tcp_server)
    async with Database(dsn_of(tcp_server.port, standby.port)) as database, asyncio.timeout(HANG):
        async with database.connection() as connection:
            assert port_of(connection) == tcp_server.port

        def switch_over() -> None:
            tcp_server.stop()
            standby.promote()
            tcp_server.follow(standby)
            tcp_server.start()

        await asyncio.to_thread(switch_over)
        async with database.connection() as connection:
            assert port_of(connection) == standby.port
