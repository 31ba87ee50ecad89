import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from shardd.proxies import parse_proxy
from shardd.transports.egress.gate import Gate
from tests.unit.egress.peers import HttpProxy, Socks5Proxy, connect, echo, serving

MAIN = "127.0.0.1"


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate(connect_timeout=5)
    await gate.start()
    yield gate
    await gate.close()


def never() -> None:
    raise AssertionError("the connection counts as lost")


async def test_bytes_pass_both_ways(gate: Gate) -> None:
    async with serving(echo) as port:
        egress = gate.admit(MAIN, on_lost=never)
        head, reader, writer = await connect(egress, f"{MAIN}:{port}")
        assert head.startswith("HTTP/1.1 200 ")
        assert egress.last_inbound is None
        writer.write(b"x" * 100_000)
        assert await reader.readexactly(100_000) == b"x" * 100_000
        assert egress.last_inbound is not None
        assert len(egress._tunnels) == 1


@pytest.mark.parametrize("credential", ["", "Basic bm9ib2R5Om5vdGhpbmc=", "rubbish"])
async def test_nobody_passes_without_a_credential(gate: Gate, credential: str) -> None:
    async with serving(echo) as port:
        egress = gate.admit(MAIN, on_lost=never)
        head, _, _ = await connect(egress, f"{MAIN}:{port}", credential)
        assert head.startswith("HTTP/1.1 407 ")
        assert egress.dials_left == 1


async def test_only_connect_is_served(gate: Gate) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    writer.write(b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 405 ")


async def test_an_endless_request_is_dropped(gate: Gate) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    writer.write(b"CONNECT x:1 HTTP/1.1\r\n" + b"a: b\r\n" * 10_000)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_a_lost_main_connection_is_reported_once_and_cannot_be_dialled_again(gate: Gate) -> None:
    lost: asyncio.Queue[str] = asyncio.Queue()
    hang_up = asyncio.Event()

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang_up.wait()

    async with serving(leave) as port:
        egress = gate.admit(MAIN, on_lost=lambda: lost.put_nowait("lost"), dials=2)
        _, reader, _ = await connect(egress, f"{MAIN}:{port}")
        egress.seal()
        assert lost.empty()
        hang_up.set()
        assert await lost.get() == "lost"
        assert await reader.read() == b""
        head, _, _ = await connect(egress, f"{MAIN}:{port}")
        assert head.startswith("HTTP/1.1 403 ")
        assert lost.empty()


async def test_a_client_being_refreshed_may_dial_as_often_as_it_was_told(gate: Gate) -> None:
    lost: asyncio.Queue[str] = asyncio.Queue()

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)

    async with serving(leave) as port:
        egress = gate.admit(MAIN, on_lost=lambda: lost.put_nowait("lost"), dials=2)
        for _ in range(2):
            assert lost.empty()
            _, reader, writer = await connect(egress, f"{MAIN}:{port}")
            writer.write(b"x")
            assert await reader.read() == b""
        assert await lost.get() == "lost"


async def test_other_hosts_are_neither_life_nor_death(gate: Gate) -> None:
    async with serving(echo) as port:
        egress = gate.admit("main.example", on_lost=never)
        egress.dials_left = 1
        for _ in range(3):
            _, reader, writer = await connect(egress, f"127.0.0.1:{port}")
            writer.write(b"abc")
            assert await reader.readexactly(3) == b"abc"
            writer.close()
            await writer.wait_closed()
        assert egress.last_inbound is None


async def test_blocked_from_another_thread_nothing_more_leaves(gate: Gate) -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait(await reader.readexactly(6))
        arrived.put_nowait(await reader.read())
        writer.write(b"still heard")
        await writer.drain()

    async with serving(collect) as port:
        egress = gate.admit(MAIN, on_lost=never)
        _, reader, writer = await connect(egress, f"{MAIN}:{port}")
        writer.write(b"before")
        assert await arrived.get() == b"before"
        await asyncio.to_thread(egress.block)
        writer.write(b"after")
        writer.write_eof()
        assert await arrived.get() == b""
        assert await reader.readexactly(11) == b"still heard"
        egress.kill()


async def test_kill_cuts_what_stands_and_what_is_being_made(gate: Gate) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=8)  # accepts by its backlog, never says a word
    proxy = parse_proxy(f"http://127.0.0.1:{silent.getsockname()[1]}")
    async with serving(echo) as port:
        egress = gate.admit(MAIN, on_lost=never)
        _, reader, _ = await connect(egress, f"{MAIN}:{port}")
        dialling = gate.admit(MAIN, on_lost=never, proxy=proxy)
        hung = asyncio.create_task(connect(dialling, f"{MAIN}:{port}"))
        while not dialling._tunnels:  # noqa: ASYNC110 - the gate's own state is what is waited for
            await asyncio.sleep(0.001)
        egress.kill()
        dialling.kill()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await hung
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        head, _, _ = await connect(egress, f"{MAIN}:{port}")
        assert head.startswith("HTTP/1.1 407 ")
        assert not egress._tunnels
        assert not dialling._tunnels
    silent.close()


async def test_a_host_that_does_not_answer_costs_the_deadline_and_says_so() -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=8)
    gate = Gate(connect_timeout=0.2)
    await gate.start()
    lost = asyncio.Event()
    proxy = parse_proxy(f"http://127.0.0.1:{silent.getsockname()[1]}")
    egress = gate.admit("far.example", on_lost=lost.set, proxy=proxy)
    head, _, _ = await connect(egress, "far.example:443")
    assert head.startswith("HTTP/1.1 504 ")
    await lost.wait()
    assert egress.dial_error == "far.example:443 did not answer within 0.2 seconds"
    await gate.close()
    silent.close()


async def test_a_refused_connection_is_told(gate: Gate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lost = asyncio.Event()
    egress = gate.admit(MAIN, on_lost=lost.set)
    head, _, _ = await connect(egress, f"{MAIN}:{port}")
    assert head.startswith("HTTP/1.1 502 ")
    await lost.wait()
    assert str(egress.dial_error).startswith(f"127.0.0.1:{port} cannot be reached: ")


async def test_each_client_has_its_own_upstream_proxy(gate: Gate) -> None:
    async with serving(echo) as port:
        http, socks = HttpProxy(port), Socks5Proxy(port, "us:er", "pässword")
        async with serving(http) as http_port, serving(socks) as socks_port:
            for url in (
                f"http://a%40b:c@127.0.0.1:{http_port}",
                f"socks5://us%3Aer:p%C3%A4ssword@127.0.0.1:{socks_port}",
            ):
                egress = gate.admit("chat.example", on_lost=never, proxy=parse_proxy(url))
                head, reader, writer = await connect(egress, "chat.example:443")
                assert head.startswith("HTTP/1.1 200 ")
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
        assert http.requests[0].splitlines()[0] == "CONNECT chat.example:443 HTTP/1.1"
        assert "Proxy-Authorization: Basic YUBiOmM=" in http.requests[0]
        assert socks.targets == [("chat.example", 443)]


async def test_what_a_proxy_refuses_is_told_without_its_password(gate: Gate) -> None:
    async with serving(echo) as port:
        http, socks = HttpProxy(port, "407 who are you"), Socks5Proxy(port, "user", "right")
        async with serving(http) as http_port, serving(socks) as socks_port:
            for url in (f"http://user:hidden@127.0.0.1:{http_port}", f"socks5://user:hidden@127.0.0.1:{socks_port}"):
                lost = asyncio.Event()
                egress = gate.admit("chat.example", on_lost=lost.set, proxy=parse_proxy(url))
                head, _, _ = await connect(egress, "chat.example:443")
                assert head.startswith("HTTP/1.1 502 ")
                await lost.wait()
                assert "refuses the user or the password" in str(egress.dial_error)
                assert "hidden" not in str(egress.dial_error)


async def test_half_close_passes_and_the_answer_still_arrives(gate: Gate) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        writer.write(b"you said " + question)
        await writer.drain()

    async with serving(answer_at_the_end) as port:
        lost = asyncio.Event()
        egress = gate.admit(MAIN, on_lost=lost.set)
        _, reader, writer = await connect(egress, f"{MAIN}:{port}")
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"you said hello"
        await lost.wait()
        assert not egress._tunnels


async def test_a_slow_reader_holds_its_sender_back_and_loses_nothing(gate: Gate) -> None:
    size = 32 * 1024 * 1024
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < size:
            writer.write(b"y" * 65536)
            sent += 65536
            await writer.drain()

    async with serving(pour) as port:
        egress = gate.admit(MAIN, on_lost=lambda: None)
        _, reader, _ = await connect(egress, f"{MAIN}:{port}")
        before = -1
        while before != sent:  # nobody reads: the pouring must come to a stop by itself
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size
        got = 0
        while data := await reader.read(1 << 20):
            got += len(data)
        assert got == size


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://host:1", "not the URL of an http or socks5 proxy"),
        ("host:3128", "not the URL of an http or socks5 proxy"),
        ("http://", "not the URL of an http or socks5 proxy"),
        ("http://host:port", "with a port from 1 to 65535"),
        ("http://host:70000", "with a port from 1 to 65535"),
        ("http://host:1/path", "not just a host and a port"),
        ("socks5://" + "u" * 256 + ":p@host", "more than 255 bytes"),
    ],
)
def test_a_wrong_proxy_url_is_named_with_the_fix(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_proxy(url)


def test_a_proxy_shows_no_password() -> None:
    proxy = parse_proxy("socks5h://me:secret@10.0.0.1")
    assert (proxy.scheme, proxy.host, proxy.port, proxy.user) == ("socks5", "10.0.0.1", 1080, "me")
    assert "secret" not in f"{proxy} {proxy!r}"


async def test_once_nothing_may_pass_any_more_both_sides_are_cut_and_no_byte_leaves() -> None:
    may_pass, arrived = True, asyncio.get_running_loop().create_future()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            arrived.set_result(await reader.read())
        except ConnectionResetError:
            arrived.set_result(b"")

    gate = Gate(connect_timeout=5, may_pass=lambda: may_pass)
    await gate.start()
    async with serving(collect) as port:
        egress = gate.admit(MAIN, on_lost=lambda: None, dials=2)
        _, reader, writer = await connect(egress, f"{MAIN}:{port}")
        may_pass = False
        writer.write(b"too late")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert await arrived == b""
        head, _, _ = await connect(egress, f"{MAIN}:{port}")
        assert head.startswith("HTTP/1.1 403 ")
    await gate.close()
