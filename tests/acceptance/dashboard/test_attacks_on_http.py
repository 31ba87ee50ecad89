"""Bytes that are no request for a page, over raw sockets: each is refused in a sentence, and harms nobody else."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie
from typing import Final

import pytest

from shardd.dashboard.site import HEADERS
from tests.acceptance.dashboard.looks import StartDaemon
from tests.support.api import make_token
from tests.support.daemon import Daemon
from tests.support.raw_http import Address, Peer, exchange, statuses
from tests.support.visitor import USERS, Visitor, visitor

GET: Final = b"GET /account HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST: Final = (
    b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)
HIDDEN: Final = GET + b"\r\n"
"""A request behind another one: who takes it for a body, or does not, must not differ from a proxy in front."""
INVALID: Final = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: evil.example\r\n\r\n",
    "no ASCII": "GET /ü HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "request line of words": b"<script>alert(1)</script>\r\n\r\n",
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na" + HIDDEN,
    "length with a sign": POST + b"Content-Length: +1\r\n\r\na" + HIDDEN,
    "negative length": POST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "space before the colon": POST + b"Content-Length : 1\r\n\r\na" + HIDDEN,
    "chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + HIDDEN,
    "folded at once": GET + b" X: folded\r\n\r\n",
    "folded": GET + b"X: a\r\n Content-Length: 5\r\n\r\n",
    "CR alone": GET + b"X: a\rContent-Length: 5\r\n\r\n",
    "CR for lines": b"GET / HTTP/1.1\rHost: 127.0.0.1\r\r",
    "LF for lines": b"GET / HTTP/1.1\nHost: 127.0.0.1\n\n",
    "NUL": GET + b"X: a\0b\r\n\r\n",
    "many headers": GET + b"X: y\r\n" * 20_000 + b"\r\n",
    "behind a good one": HIDDEN + b"GARBAGE\r\n\r\n",
}
TOO_LONG: Final = {
    "100 kB in a header": GET + b"Cookie: " + b"a" * 100_000 + b"\r\n\r\n",
    "100 kB in the name of a header": GET + b"a" * 100_000 + b": a\r\n\r\n",
    "100 kB in the address": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}
NOWHERE: Final = {
    "tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "of no path": b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}
ELSEWHERE: Final = {
    "for another host": b"GET http://evil.example/account HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "from another host": b"GET http://127.0.0.1/account HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /account HTTP/1.0\r\n\r\n",
}
PART: Final = b'--b\r\nContent-Disposition: form-data; name="name"\r\n%s\r\n\r\nada\r\n--b--\r\n'
FORMS: Final = {
    "unknown charset": ("application/x-www-form-urlencoded; charset=nope", b"name=ada"),
    "charset of no text": ("application/x-www-form-urlencoded; charset=base64", b"name=ada"),
    "no UTF-8": ("application/x-www-form-urlencoded", b"name=\xff"),
    "no boundary": ("multipart/form-data", PART % b"X: y"),
    "another boundary": ("multipart/form-data; boundary=c", PART % b"X: y"),
    "transfer encoding": ("multipart/form-data; boundary=b", PART % b"Content-Transfer-Encoding: nope"),
    "no base64": ("multipart/form-data; boundary=b", PART % b"Content-Transfer-Encoding: base64"),
    "part of an unknown charset": ("multipart/form-data; boundary=b", PART % b"Content-Type: text/plain; charset=nope"),
}
"""Of which none can be read: the kind, and the body."""
CUT: Final = (
    GET,
    POST + b"Content-Length: 100\r\n\r\nname=",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nna",
)
"""After which the other side is silent: it is cut off, see `shardd.supervisor.http_listener`."""
PATHS: Final = [
    "/static/../site.py",
    "/static/%2e%2e/site.py",
    "/static/..%2fsite.py",
    "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
    "/static/..\\site.py",
    "//etc/passwd",
    "/static//shardd.css",
    "/../../../../etc/passwd",
    "/%00",
    "/jobs/%00",
    "/devices/%00",
    "/campaigns/%00",
    "/webhooks/%00",
    "/events?device=%00",
    "/devices/%ff%fe",
    "/devices/%2e%2e",
    "/sign-in/%2e%2e%2f",
    "/" + "a" * 7000,
    "/" + "%2e%2e%2f" * 700,
    "/?" + "a=b&" * 1500,
    "/sign-in/%0d%0aSet-Cookie:%20a=b",
    "http://evil.example/",
    "*",
]


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    return await start_daemon(users=USERS)


def address_of(daemon: Daemon) -> Address:
    host, _, port = daemon.settings["dashboard"]["listen"].rpartition(":")
    return host, int(port)


def cookie_of(somebody: Visitor) -> str:
    """As a browser sends it to a host without a port."""
    return f"shardd-80={somebody.cookie}"


def parts(answer: bytes) -> tuple[dict[str, str], str]:
    """The headers and the body of the only answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:]), body.decode()


async def look(peer: Peer, cookie: str) -> int:
    """The status of the operator's next request on a connection that stays open."""
    await peer.send(GET + f"Cookie: {cookie}\r\n\r\n".encode())
    head = await peer.reader.readuntil(b"\r\n\r\n")
    await peer.reader.readexactly(int(parts(head)[0]["Content-Length"]))
    (status,) = statuses(head)
    return status


async def test_what_is_no_request_is_refused_in_a_sentence_and_harms_nobody(daemon: Daemon) -> None:
    where = address_of(daemon)
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        cookie = cookie_of(ada)
    (pid,) = daemon.dashboard_pids()
    peer = await Peer.connect(where)
    for status, words, requests in (
        (400, r"The request is not valid HTTP\.", INVALID),
        (400, r"The address or a header of the request is longer than 8,190 bytes\.", TOO_LONG),
        (404, r"(CONNECT|OPTIONS) \*?: Not Found\.", NOWHERE),
        (421, r"This page is not (evil\.example|\(none\))\. If it should be, set dashboard\.origin,", ELSEWHERE),
    ):
        for what, request in requests.items():
            answer = await exchange(where, request)
            # One answer, and the end: what came behind is no request of anybody.
            assert statuses(answer) == [status], (what, answer[:2000])
            headers, body = parts(answer)
            assert HEADERS.items() <= headers.items(), (what, headers)
            assert re.search(words, body), (what, body)
            assert status == 421 or (headers["Content-Type"], body.count("\n")) == ("text/plain; charset=utf-8", 1), (
                what
            )
            assert not re.search(rb"aiohttp|Python|Traceback|Set-Cookie|<script>alert", answer), (what, answer)
            assert await look(peer, cookie) == 200, what
    for request in CUT:
        cut = await Peer.connect(where)
        await cut.send(request)
        cut.writer.write_eof()
        answer = await cut.rest()
        assert not answer or HEADERS.items() <= parts(answer)[0].items(), (request, answer)
        await cut.close()
        assert await look(peer, cookie) == 200, request
    await peer.close()
    assert daemon.dashboard_pids() == [pid]
    assert "Traceback" not in daemon.log_tail(1000)


async def test_bytes_that_are_no_text_are_refused_in_words_wherever_they_stand(daemon: Daemon) -> None:
    where = address_of(daemon)
    token = (await make_token(daemon, "office", "operate")).encode()
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        signed_in = b"Cookie: " + cookie_of(ada).encode() + b"\r\n"
    program = b"Authorization: Bearer " + token + b"\r\n"
    for what, (status, request) in {
        "token": (401, b"GET /api/v1/status HTTP/1.1\r\nAuthorization: Bearer shardd_\xff\r\n"),
        "scheme": (401, b"GET /api/v1/status HTTP/1.1\r\nAuthorization: \xff \xff\r\n"),
        "position": (400, b"GET /api/v1/events/stream HTTP/1.1\r\nLast-Event-ID: \xff\r\n" + program),
        "kind of body": (
            415,
            b"POST /api/v1/opt-outs HTTP/1.1\r\nContent-Length: 2\r\nContent-Type: \xff/\xff\r\n" + program,
        ),
        "encoding of body": (
            415,
            b"POST /api/v1/opt-outs HTTP/1.1\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
            b"Content-Encoding: \xff\r\n" + program,
        ),
        "parameter": (400, b"GET /api/v1/jobs?state=%ff%00%ed%a0%80 HTTP/1.1\r\n" + program),
        "name of a parameter": (400, b"GET /api/v1/jobs?%ff%ed%a0%80=1 HTTP/1.1\r\n" + program),
        "device of the API": (404, b"GET /api/v1/devices/%ff%ed%a0%80 HTTP/1.1\r\n" + program),
        "cookie": (401, b"GET /account HTTP/1.1\r\nCookie: shardd-80=\xff\r\n"),
        "cookie of a pairing": (410, b"GET /pair HTTP/1.1\r\nCookie: shardd-pair=\xff\r\n"),
        "page's token": (403, b"POST /sign-out HTTP/1.1\r\nX-Shardd-Token: \xff\r\n" + signed_in),
        "origin": (403, b"POST /sign-in HTTP/1.1\r\nOrigin: \xff\r\n"),
        "device": (404, b"GET /devices/%ff%ed%a0%80 HTTP/1.1\r\n" + signed_in),
        "filter": (400, b"GET /devices?state=%ff%ed%a0%80 HTTP/1.1\r\n" + signed_in),
        "forwarded": (401, b"GET /account HTTP/1.1\r\nX-Forwarded-For: \xff\r\n"),
        "host": (421, b"GET /account HTTP/1.1\r\nHost: \xff\r\n"),
    }.items():
        host = b"" if b"Host:" in request else b"Host: 127.0.0.1\r\n"
        body = b"{}" if b"Content-Length" in request else b""
        answer = await exchange(where, request + host + b"Connection: close\r\n\r\n" + body)
        assert statuses(answer) == [status], (what, answer[:2000])
    assert "Traceback" not in daemon.log_tail(1000)


async def test_no_path_leads_elsewhere(daemon: Daemon) -> None:
    where = address_of(daemon)
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        cookie = cookie_of(ada)
    for path in PATHS:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        stranger = await exchange(where, f"{request}\r\n".encode())
        assert statuses(stranger)[0] in {400, 401, 404, 421}, (path, stranger[:200])
        operator = await exchange(where, f"{request}Cookie: {cookie}\r\n\r\n".encode())
        assert statuses(operator)[0] in {200, 400, 404, 421}, (path, operator[:200])
        for answer in (stranger, operator):
            assert not re.search(rb"root:|from __future__", answer), path
            assert not SimpleCookie(parts(answer)[0].get("Set-Cookie")), path


async def test_a_form_that_cannot_be_read_is_refused_in_words(daemon: Daemon) -> None:
    async with visitor(daemon) as stranger:
        for what, (kind, body) in FORMS.items():
            answer = await stranger.request("POST", "/sign-in", data=body, headers={"Content-Type": kind})
            assert answer.status == 400, (what, await answer.text())
            assert "the form cannot be read" in await answer.text(), what
            assert HEADERS.items() <= answer.headers.items(), what
    assert "Traceback" not in daemon.log_tail(1000)


async def test_what_is_unknown_is_repeated_in_part_however_long_it_is(daemon: Daemon) -> None:
    names, digits = "x" * 7000, "1" * 5000
    token = await make_token(daemon, "look", "look")
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        for path in (
            f"/devices/{names}",
            f"/campaigns/{names}",
            f"/webhooks/{names}",
            f"/jobs/{digits}",
            f"/jobs?before={digits}",
            f"/events?kind={names}",
            f"/inbox?before={digits}",
            f"/{names}",
            f"/api/v1/devices/{names}",
            f"/api/v1/campaigns/{names}",
            f"/api/v1/campaigns/{names}/progress",
            f"/api/v1/jobs/{digits}",
            f"/api/v1/jobs?recipient={names}",
            f"/api/v1/jobs?state={names}",
            f"/api/v1/jobs?{names}=1",
            f"/api/v1/events?after={digits}",
            f"/api/v1/problems/{names}",
        ):
            answer = await ada.get(path, **({"Authorization": f"Bearer {token}"} if "/api/" in path else {}))
            text = await answer.text()
            assert answer.status in {400, 404}, (path[:40], answer.status)
            assert "x" * 101 not in text, path[:40]
            assert "1" * 101 not in text, path[:40]
        told = await (await ada.get(f"/api/v1/campaigns/{names}", Authorization=f"Bearer {token}")).json(
            content_type=None
        )
        assert told["detail"] == f"campaign {names[:80]}… is unknown; the others: shardd campaign list"
        assert told["value"] == f"{names[:80]}…"
        spaced = await ada.get(f"/campaigns/{'a%20' * 2000}")
        assert len(await spaced.text()) < 10_000
