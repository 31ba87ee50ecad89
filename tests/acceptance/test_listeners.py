"""The sockets of a running daemon, with clients that send anything."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.raw_http import Address, Peer, exchange, post, statuses

SECRET = "app-secret-of-this-test"
A_WHILE = 0.1
"""Seconds in which a request that is not whole may get an answer; that it gets none is as good."""
NOTIFICATION = json.dumps({"entry": []}).encode()


def signed(body: bytes) -> bytes:
    return b"X-Hub-Signature-256: sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest().encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Sockets:
    """Where a daemon listens."""

    daemon: Daemon
    control: Path
    metrics: Address
    webhook: Address

    def open_files(self) -> int:
        assert self.daemon.process is not None
        return len(list(Path(f"/proc/{self.daemon.process.pid}/fd").iterdir()))

    def peak_memory(self) -> int:
        """Bytes."""
        assert self.daemon.process is not None
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    async def check_well(self) -> None:
        """It serves everybody, the same process as before, and has nothing to say of defects."""
        assert statuses(
            await exchange(self.webhook, post(b"/hook", NOTIFICATION, signed(NOTIFICATION), b"Connection: close"))
        ) == [200]
        assert statuses(
            await exchange(self.metrics, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        ) == [200]
        assert (await self.daemon.status())["healthy"]
        log = [json.loads(line) for line in self.daemon.log_file.read_text().splitlines()]
        assert [line for line in log if line["level"] in {"error", "critical"} or "exception" in line] == []


@pytest.fixture
async def sockets(make_daemon: Callable[..., Daemon], request: pytest.FixtureRequest) -> Sockets:
    """The parameter, if there is one: whether the HTTP library is to do without its parser in C, as where it has none."""
    webhook, metrics = free_port(), free_port()
    daemon = make_daemon(
        control={"metrics": f"127.0.0.1:{metrics}"},
        transports={
            "cloud_api": {
                "webhook": {
                    "listen": f"127.0.0.1:{webhook}",
                    "path": "/hook",
                    "app_secret": SECRET,
                    "verify_token": "word-of-this-test",
                }
            }
        },
    )
    if getattr(request, "param", False):
        daemon.environ["AIOHTTP_NO_EXTENSIONS"] = "1"
    await daemon.start()
    return Sockets(daemon, daemon.socket, ("127.0.0.1", metrics), ("127.0.0.1", webhook))


both_parsers = pytest.mark.parametrize("sockets", [False, True], indirect=True, ids=["C", "Python"])

HEADERS = (
    b"X-Hub-Signature-256: sha256=\xff\xfe",
    b"X-Hub-Signature-256: \xff",
    b"X-Hub-Signature-256: sha256=" + b"0" * 64,
    b"X-Hub-Signature-256: sha256=" + b"0" * 7000,
    b"X-Hub-Signature-256: sha256=" + "é".encode() * 32,
    b"X-Hub-Signature-256:",
    b"X-Hub-Signature-256: a\x00b",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br\xff",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Content-Length: -1",
    b"Content-Length: " + b"9" * 5000,
    b"Content-Length: \xd9\xa3",
    b"Content-Type: application/json; charset=\xff",
    b"Expect: 100-continue",
    b"Expect: something",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
    b"\xff\xfe: x",
    b" folded",
    b"no colon",
    b"X: " + b"y" * 9000,
    *(b"H%d: x" % number for number in range(200)),
)
BODIES = (
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 200_000,
    b"9" * 5000,
    b'{"entry":' + b'[{"changes":' * 500,
    b"\x1f\x8b\x08\x00",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
)
PATHS = (
    b"/hook",
    b"/hook?hub.mode=subscribe&hub.verify_token=\xff",
    b"/hook?hub.mode=subscribe&hub.verify_token=%FF%ED%A0%80",
    b"/hook?" + b"a" * 9000,
    b"/",
    b"//",
    b"/%00",
    b"/\xff",
    b"*",
    b"http://[::1",
    b"/hook/../hook",
    b"/metrics",
)
METHODS = (b"POST", b"GET", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"\xff", b"P" * 9000, b"")


def odd_request(draw: random.Random) -> bytes:
    """Something like HTTP."""
    headers = draw.sample(HEADERS, draw.choice((0, 1, 2, 3, 150)))
    body = draw.choice(BODIES)
    if draw.random() < 0.5:
        headers.append(b"Content-Length: %d" % len(body))
    version = draw.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b""))
    lines = (
        draw.choice(METHODS[:1] * 9 + METHODS) + b" " + draw.choice(PATHS[:1] * 9 + PATHS) + b" " + version,
        b"Host: h",
        *headers,
        b"",
        body,
    )
    request = b"\r\n".join(lines)
    if draw.random() < 0.1:
        request = bytes(sign if draw.random() > 0.02 else draw.randrange(256) for sign in request[:4000])
    # Several in one go, the last one perhaps cut.
    return (request * draw.choice((1, 1, 1, 2, 20)))[: draw.choice((None, None, 100))]


@both_parsers
async def test_metas_webhook_never_fails_whatever_the_bytes(sockets: Sockets) -> None:
    """A signature that was no UTF-8 gave 500 and a traceback."""
    for header in HEADERS[:7]:
        answer = await exchange(sockets.webhook, post(b"/hook", NOTIFICATION, header, b"Connection: close"))
        assert statuses(answer) in ([401], [400]), (header, answer)
    for challenge in (b"\xff", b"%FF", b"%ED%A0%80"):
        registration = b"GET /hook?hub.mode=subscribe&hub.verify_token=word-of-this-test&hub.challenge=" + challenge
        answer = await exchange(sockets.webhook, registration + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert statuses(answer) in ([200], [400]), (challenge, answer)
    for body in (b"", b"{", b"\xff\xfe", b"[" * 200_000, b'"\xed\xa0\x80"'):
        answer = await exchange(sockets.webhook, post(b"/hook", body, signed(body), b"Connection: close"))
        assert statuses(answer) == [400], (body[:20], answer)
    draw = random.Random(8)
    for _ in range(250):
        request = odd_request(draw)
        answers = statuses(await exchange(sockets.webhook, request, patience=A_WHILE))
        assert all(200 < status < 500 for status in answers), (request[:2000], answers)
    await sockets.check_well()


@both_parsers
async def test_the_control_socket_and_the_metrics_never_fail_whatever_the_bytes(sockets: Sockets) -> None:
    """A number of 5000 digits gave 500."""
    names = (
        b"9" * 5000,
        b"9" * 9,
        b"1",
        b"-1",
        "٣".encode(),
        b"\xff",
        b"%00",
        b"%ED%A0%80",
        b"..",
        b"",
        b"a%2Fb",
        b"x" * 7000,
        b"%1b%5b2J",
    )
    for name in names:
        for route in (b"shards/%s/restart", b"shards/%s/drain", b"devices/%s/close", b"devices/%s"):
            method = b"GET" if route == b"devices/%s" else b"POST"
            if name == b"1" and route.startswith(b"shards"):
                continue  # a shard of ours
            request = method + b" /" + route % name + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            answer = await exchange(sockets.control, request)
            assert statuses(answer)[0] in {400, 404}, (request[:200], answer[:500])
            head, _, body = answer.partition(b"\r\n\r\n")
            if b"application/json" in head:
                assert len(json.loads(body)["error"]) < 400
    draw = random.Random(9)
    for _ in range(100):
        request = odd_request(draw).replace(b"/hook", b"/metrics")
        for where in (sockets.control, sockets.metrics):
            assert all(status < 500 for status in statuses(await exchange(where, request, patience=A_WHILE))), request[
                :2000
            ]
    await sockets.check_well()


async def test_peers_that_send_or_read_slowly_keep_nobody_out(sockets: Sockets) -> None:
    """32 slow unsigned bodies made a signed one wait, and get 503."""
    body_to_come = (
        b"POST /hook HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\nX-Hub-Signature-256: sha256="
        + b"0" * 64
        + b"\r\n\r\n{"
    )
    begun = b"POST /hook HTTP/1.1\r\nHost: h\r\nX-Hub"
    whole = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"
    slow: list[Peer] = []
    try:
        for _ in range(150):
            for where, words in (
                (sockets.webhook, body_to_come),
                (sockets.webhook, begun),
                (sockets.metrics, whole * 50),
                (sockets.control, whole * 50),
                (sockets.control, b"GET /sta"),
            ):
                peer = await Peer.connect(where)
                slow.append(peer)
                await peer.send(words)
        await sockets.check_well()
        assert sockets.open_files() < 350  # of 750 connections
    finally:
        for peer in slow:
            peer.writer.transport.abort()


async def test_bodies_that_are_not_whole_hold_little_memory(sockets: Sockets) -> None:
    head = (
        b"POST /hook HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\nX-Hub-Signature-256: sha256="
        + b"0" * 64
        + b"\r\n\r\n"
    )
    slow: list[Peer] = []
    before = sockets.peak_memory()
    try:
        for _ in range(60):
            slow.append(await Peer.connect(sockets.webhook))
            await slow[-1].send(head + b" " * 2_900_000)
        await sockets.check_well()
        assert sockets.peak_memory() - before < 60_000_000  # of 174,000,000 bytes that were sent
    finally:
        for peer in slow:
            peer.writer.transport.abort()
