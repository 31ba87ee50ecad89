"""A single POST: its signature, and servers that answer with invalid HTTP."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shardd.config import WebhookConfig
from shardd.config.values.words import webhook_key
from shardd.queue.webhooks import Event
from shardd.supervisor.outbox.post import Answer, Meaning, WebhookPost, signed_headers
from tests.support.certificate import server_tls
from tests.support.webhook_receiver import SECRET

EVENT = Event(
    7, "evt_7", dt.datetime.now(dt.UTC), "job.sent", "job 1", '{"type": "job.sent", "data": {"name": "Åsa 🎈"}}'
)
CUT = Answer(Meaning.FAILED, "no answer: the connection was closed")
NO_HTTP = Answer(Meaning.FAILED, "no answer: the answer is not valid HTTP")


@asynccontextmanager
async def serving(answer: bytes, tls: ssl.SSLContext | None = None, *, hold: bool = False) -> AsyncIterator[int]:
    """A server that reads a request's head and says these bytes; `hold`: it does not hang up then."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if hold:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def post(url: str, timeout: str = "20s") -> Answer:
    poster = WebhookPost(WebhookConfig.model_validate({"url": url, "secret": SECRET, "timeout": timeout}))
    try:
        return await poster.post(EVENT)
    finally:
        await poster.close()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"", CUT),
        (b"what?\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 200", CUT),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", CUT),
        (b"HTTP/1.1 200 OK\r\nX: " + 100_000 * b"x" + b"\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Answer(Meaning.ACCEPTED)),
        (b"HTTP/1.1 202 Accepted\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz", Answer(Meaning.ACCEPTED)),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n", Answer(Meaning.FAILED, "HTTP 503", 7.0)),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: soon\r\n\r\n", Answer(Meaning.FAILED, "HTTP 503")),
        (b"HTTP/1.1 400 Bad\r\n\r\ngeheim", Answer(Meaning.REFUSED, "HTTP 400")),
        (b"HTTP/1.1 410 Gone\r\n\r\n", Answer(Meaning.GONE, "HTTP 410: it wants no more events")),
        (
            b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
            Answer(
                Meaning.REFUSED,
                "HTTP 307: a redirect, which is not followed; configure the URL that it leads to",
            ),
        ),
    ],
    ids=range(12),
)
async def test_what_an_answer_means(said: bytes, meant: Answer) -> None:
    async with serving(said) as port:
        assert await post(f"http://127.0.0.1:{port}/") == meant


async def test_a_body_without_an_end_is_not_waited_for() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + 200_000 * b"x", hold=True) as port:
        assert await post(f"http://127.0.0.1:{port}/", timeout="5m") == Answer(Meaning.ACCEPTED)


async def test_a_missing_answer_times_out() -> None:
    async with serving(b"HTTP/1.1 200", hold=True) as port:
        assert await post(f"http://127.0.0.1:{port}/", timeout="200ms") == Answer(
            Meaning.FAILED, "no answer within 0.2 s"
        )


async def test_a_closed_port() -> None:
    async with serving(b"") as port:
        pass
    assert await post(f"http://127.0.0.1:{port}/") == Answer(Meaning.FAILED, "cannot be reached: Connection refused")


async def test_a_server_without_a_valid_certificate_gets_nothing(tmp_path: Path) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", server_tls(tmp_path)) as port:
        assert await post(f"https://127.0.0.1:{port}/") == Answer(
            Meaning.FAILED, "cannot be reached: its certificate cannot be trusted"
        )
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        answer = await post(f"https://127.0.0.1:{port}/", timeout="2s")
        assert (answer.meaning, answer.error) in {
            (Meaning.FAILED, "cannot be reached: no TLS connection"),
            (Meaning.FAILED, "no answer within 2 s"),  # this server waits for the head of a request
        }


def test_a_signature_holds_for_this_id_time_and_body_only() -> None:
    body = EVENT.body.encode()
    at = int(dt.datetime.now(dt.UTC).timestamp())
    headers = signed_headers("evt_7", at, body, [webhook_key(SECRET)])
    receiver = Webhook(SECRET)
    receiver.verify(body, headers)
    for changed in ({"webhook-id": "evt_8"}, {"webhook-timestamp": str(at + 1)}):
        with pytest.raises(WebhookVerificationError):
            receiver.verify(body, headers | changed)
    with pytest.raises(WebhookVerificationError):
        receiver.verify(body.replace(b"sent", b"read"), headers)
