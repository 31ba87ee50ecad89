"""The network between a node and a server: forwarded, stopped, cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from stormlib.link import Link


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """To a server that echoes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = await Link.to(server.sockets[0].getsockname()[1])
    yield link
    await link.close()
    server.close()


async def connect(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", link.port)


async def test_what_is_sent_while_it_hangs_arrives_afterwards(link: Link) -> None:
    reader, writer = await connect(link)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    link.hang()
    writer.write(b"two")
    late = asyncio.ensure_future(connect(link))  # accepted, like all else in vain
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.readexactly(3)
    await link.repair()
    assert await reader.readexactly(3) == b"two"
    late_reader, late_writer = await late
    late_writer.write(b"late")
    assert await late_reader.readexactly(4) == b"late"
    for one in (writer, late_writer):
        one.close()


async def test_a_cut_resets_connections_and_refuses_new_ones_until_it_is_repaired(link: Link) -> None:
    reader, writer = await connect(link)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    port = link.port
    await link.cut()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    with pytest.raises(ConnectionRefusedError):
        await connect(link)
    await link.repair()
    assert link.port == port
    reader, writer = await connect(link)
    writer.write(b"two")
    writer.write_eof()
    assert await reader.read() == b"two"
    writer.close()


async def test_what_hangs_and_is_cut_can_be_closed(link: Link) -> None:
    """A storm that was stopped in the middle left its servers running: its links could not be closed."""
    reader, writer = await connect(link)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    link.hang()
    await link.cut()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    await link.close()
    writer.close()
