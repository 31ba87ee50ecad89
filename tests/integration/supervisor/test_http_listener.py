"""Which connections a listener keeps, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from shardd.supervisor.http_listener import Listener
from tests.support.raw_http import Peer, exchange, statuses

QUICK = b"GET /quick HTTP/1.1\r\nHost: h\r\n\r\n"
LONG = b"GET /long HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
HALF = b"POST /read HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf"
BIG = 30_000_000
PATIENCE = 0.3
MOST = 1_000_000


class Position:
    """A listener of two places, and a request that takes as long as the test wants."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.begun = asyncio.Semaphore(0)
        self.end = asyncio.Event()
        routes = [web.get("/quick", self._quick), web.get("/long", self._long), web.get("/broken", self._broken)]
        routes += [web.post("/read", self._read), web.get("/big", self._big)]
        self.listener = Listener("test", routes, most=2, patience=PATIENCE, max_body=MOST)

    async def _quick(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _long(self, request: web.Request) -> web.Response:
        with self.listener.working(request):
            self.begun.release()
            await self.end.wait()
        return web.Response(text="ok")

    async def _read(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def _big(self, _: web.Request) -> web.Response:
        return web.Response(body=bytes(BIG))

    async def _broken(self, _: web.Request) -> web.Response:
        raise ZeroDivisionError("secret words")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Position]:
    place = Position(tmp_path / "socket")
    await place.listener.listen(place.socket)
    yield place
    await place.listener.close()


@pytest.mark.parametrize("sent", [b"", b"GET /qui", QUICK, HALF, QUICK + HALF])
async def test_a_peer_that_is_silent_for_too_long_is_disconnected(place: Position, sent: bytes) -> None:
    peer = await Peer.connect(place.socket)
    await peer.send(sent)
    assert statuses(await peer.rest()) == [200] * sent.count(QUICK)


async def test_a_large_request_may_take_as_long_as_it_arrives_quickly_enough(place: Position) -> None:
    peer = await Peer.connect(place.socket)
    await peer.send(f"POST /read HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {MOST}\r\n\r\n".encode())
    for _ in range(50):
        await peer.send(bytes(MOST // 50))
        await asyncio.sleep(PATIENCE / 5)  # three seconds in all, and ten times the least rate
    assert statuses(await peer.rest()) == [200]


async def test_a_peer_that_does_not_take_its_answer_is_disconnected(place: Position) -> None:
    peer, later = await Peer.connect(place.socket), await Peer.connect(place.socket)
    await peer.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    await later.send(HALF)
    assert await later.rest() == b""  # so the patience for the first is over, too
    assert len(await peer.rest()) < BIG


async def test_a_new_connection_replaces_the_slowest(place: Position) -> None:
    first, second = await Peer.connect(place.socket), await Peer.connect(place.socket)
    await first.send(b"GET /qui")
    await second.send(QUICK)
    assert statuses(await second.reader.readuntil(b"ok")) == [200]
    # An answered one owes nothing, and is the first to go all the same; then who has kept us waiting.
    third = await Peer.connect(place.socket)
    await third.send(QUICK)
    assert await second.rest() == b""
    assert statuses(await exchange(place.socket, QUICK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) == [200]
    assert statuses(await third.rest()) == [200]
    await first.send(b"ck HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert statuses(await first.rest()) == [200]


async def test_a_request_at_work_keeps_its_connection(place: Position) -> None:
    peers = [asyncio.create_task(exchange(place.socket, LONG))]
    await place.begun.acquire()
    slow = await Peer.connect(place.socket)
    await slow.send(HALF)
    assert await slow.rest() == b""  # so much time has gone by, and the listener has looked
    peers.append(asyncio.create_task(exchange(place.socket, LONG)))
    await place.begun.acquire()
    assert await exchange(place.socket, QUICK) == b""  # no place is left
    place.end.set()
    assert [statuses(answer) for answer in await asyncio.gather(*peers)] == [[200], [200]]


async def test_a_defect_is_logged_and_not_shown_to_the_peer(place: Position) -> None:
    answer = await exchange(place.socket, b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n")
    assert statuses(answer) == [500]
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "a defect of shardd; its log has the details"}
