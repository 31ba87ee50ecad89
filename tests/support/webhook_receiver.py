"""A webhook receiver: a real HTTP server on loopback that verifies signatures with the reference library of Standard Webhooks,
records requests, and misbehaves on command.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook

PATIENCE = 60.0
"""Seconds after which a test fails because something hangs."""
SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
RESET, HANG = "reset", "hang"

Manner = Callable[["Posted"], "int | str | Answer"]


@dataclass(frozen=True)
class Posted:
    """One request."""

    number: str
    """webhook-id"""
    headers: Mapping[str, str]
    body: bytes
    earlier: int
    """The number of earlier requests with the same id."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        return str(self.json["type"])

    @property
    def job(self) -> int | None:
        found: int | None = self.json["data"].get("job_id")
        return found


@dataclass(frozen=True)
class Answer:
    """An answer with more than a status."""

    status: int
    headers: Mapping[str, str]
    delay: float = 0.0


class Receiver:
    """`manner` decides the answer to each request; those answered with 2xx count as accepted."""

    def __init__(self, manner: Manner = lambda _: 204, secret: str = SECRET) -> None:
        self.manner = manner
        self.secret = secret
        self.posted: list[Posted] = []
        self.taken: list[Posted] = []
        self.at_once = 0
        self.most_at_once = 0
        self.port = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=geheim"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if it was stopped."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def until(self, true: Callable[[Receiver], bool]) -> None:
        """Wait for a condition that only requests can change."""
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(lambda: true(self))
        except TimeoutError:
            counts = Counter(post.number for post in self.posted)
            raise AssertionError(f"never came true: {len(self.taken)} taken, posted {counts}") from None

    async def until_taken(self, count: int) -> list[Posted]:
        """Wait until this many different events were accepted."""
        await self.until(lambda receiver: len({post.number for post in receiver.taken}) >= count)
        return self.taken

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        Webhook(self.secret).verify(body, dict(request.headers))  # raises, which is answered with 500
        number = request.headers["webhook-id"]
        posted = Posted(number, dict(request.headers), body, sum(post.number == number for post in self.posted))
        self.posted.append(posted)
        answer = self.manner(posted)
        if isinstance(answer, int):
            answer = Answer(answer, {})
        if isinstance(answer, Answer):
            await asyncio.sleep(answer.delay)
            if 200 <= answer.status < 300:
                self.taken.append(posted)
        async with self._changed:
            self._changed.notify_all()
        if isinstance(answer, Answer):
            return web.Response(status=answer.status, headers=answer.headers, text="what a receiver says")
        if answer == HANG:
            await asyncio.sleep(2 * PATIENCE)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
