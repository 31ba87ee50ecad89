"""From TCP to frames, over real loopback sockets: the proxy request, TLS, the websocket."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.whatsapp_server.crypto.pki import Pki
from tests.whatsapp_server.wire.frames import ConnectionEndedError, FrameChannel
from tests.whatsapp_server.wire.proxy import ProxyRequestError, read_proxy_request
from tests.whatsapp_server.wire.tls import TlsStream

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CONNECT = b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\nHost: web.whatsapp.com:443\r\n"


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Streams, Streams]]:
    """(the server's end, the client's end) of one TCP connection."""
    accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    async with listening(accept) as port:
        client = await asyncio.open_connection("127.0.0.1", port)
        server = await accepted
        yield server, client
        client[1].close()
        server[1].close()


@pytest.mark.parametrize(
    ("header", "user"),
    [(b"", ""), (b"Proxy-Authorization: Basic " + base64.b64encode(b"62811:secret") + b"\r\n", "62811")],
)
async def test_an_http_connect_names_host_port_and_user(header: bytes, user: str) -> None:
    async with connected() as (server, (_, client)):
        client.write(CONNECT + header + b"\r\n")
        request = await read_proxy_request(*server)
    assert (request.host, request.port, request.user) == ("web.whatsapp.com", 443, user)
    assert request.granted.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT nowhere HTTP/1.1\r\n\r\n",
        CONNECT + b"Proxy-Authorization: Basic %%%\r\n\r\n",
        CONNECT + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_proxy_request_is_refused(head: bytes) -> None:
    async with connected() as (server, (_, client)):
        client.write(head)
        with pytest.raises(ProxyRequestError):
            await read_proxy_request(*server)


@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize(("address", "host"), [(b"\x03\x07host.id", "host.id"), (b"\x01\x7f\x00\x00\x01", "7f000001")])
async def test_a_socks_client_is_understood(login: bool, address: bytes, host: str) -> None:
    async with connected() as (server, (replies, client)):
        client.write(b"\x05\x02\x00\x02" if login else b"\x05\x01\x00")
        if login:
            client.write(b"\x01\x0562811\x06secret")
        client.write(b"\x05\x01\x00" + address + b"\x01\xbb")
        request = await read_proxy_request(*server)
        assert (request.host, request.port, request.user) == (host, 443, "62811" if login else "")
        assert await replies.readexactly(4 if login else 2) == (b"\x05\x02\x01\x00" if login else b"\x05\x00")


async def test_a_client_that_hangs_up_ends_the_reading() -> None:
    async with connected() as (server, (_, client)):
        client.write(b"CONNECT ")
        client.close()
        with pytest.raises(asyncio.IncompleteReadError):
            await read_proxy_request(*server)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.in_folder(tmp_path_factory.mktemp("pki"))


def client_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pki.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    return context


def test_a_pki_folder_is_made_once(pki: Pki) -> None:
    before = [path.read_bytes() for path in pki]
    again = Pki.in_folder(pki.ca.parent)
    assert [path.read_bytes() for path in again] == before
    assert len(again.noise_root().public) == 32


@pytest.mark.parametrize("host", ["web.whatsapp.com", "mmg.whatsapp.net"])
async def test_tls_carries_bytes_both_ways_under_whatsapps_names(pki: Pki, host: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = TlsStream(reader, writer, pki.tls_context())
        await stream.handshake()
        while data := await stream.read():
            stream.write(data)
        await stream.close()

    async with listening(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context(pki), server_hostname=host)
        payload = bytes(range(256)) * 2000
        writer.write(payload)
        assert await reader.readexactly(len(payload)) == payload
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_does_not_trust_us_fails_the_handshake(pki: Pki, tmp_path: Path) -> None:
    async with connected() as (server, (_, client)):
        stream = TlsStream(*server, pki.tls_context())
        failing = asyncio.create_task(stream.handshake())
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.start_tls(client_context(Pki.in_folder(tmp_path)), server_hostname="web.whatsapp.com")
        with pytest.raises((ssl.SSLError, EOFError)):
            await failing


@asynccontextmanager
async def frame_server(pki: Pki, serve: Callable[[FrameChannel], Awaitable[None]]) -> AsyncIterator[str]:
    """Address of a websocket server whose connections ``serve`` gets once the upgrade request was read."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = TlsStream(reader, writer, pki.tls_context())
        await stream.handshake()
        channel = FrameChannel(stream)
        await channel.read_upgrade()
        await serve(channel)
        await stream.close()

    async with listening(accept) as port:
        yield f"wss://localhost:{port}/ws"


async def test_frames_pass_whatever_messages_carry_them(pki: Pki) -> None:
    received: list[bytes] = []
    done = asyncio.Event()

    async def serve(channel: FrameChannel) -> None:
        channel.accept_upgrade()
        received.append(await channel.read_header())
        received.extend([await channel.read(), await channel.read(), await channel.read()])
        channel.write(b"answer")
        with pytest.raises(ConnectionEndedError):
            await channel.read()
        done.set()

    async with frame_server(pki, serve) as url, connect(url, ssl=client_context(pki)) as websocket:
        await websocket.send(b"WA\x06\x03\x00\x00\x03one\x00\x00")
        await websocket.send([b"\x03t", b"wo\x00"])
        await websocket.send(b"\x00\x00")
        assert await websocket.recv() == b"\x00\x00\x06answer"
        await websocket.close()
        await asyncio.wait_for(done.wait(), 10)
    assert received == [b"WA\x06\x03", b"one", b"two"[:3], b""]


async def test_an_upgrade_can_be_refused(pki: Pki) -> None:
    async def serve(channel: FrameChannel) -> None:
        channel.refuse_upgrade(503)

    async with frame_server(pki, serve) as url:
        with pytest.raises(InvalidStatus, match="503"):
            await connect(url, ssl=client_context(pki))
