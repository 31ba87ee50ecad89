"""Whoever looks at the dashboard: signs in, asks for pages on one connection, and leaves pages open."""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from benchlib.dashboard_pages import Address
from shardd.control_client import ask

GOOD: Final = frozenset({200, 400, 404})
"""Statuses of answers: 400 and 404 tell of names that do not exist."""
_STREAM: Final = re.compile(r'sse-connect="([^"]+)"')


@dataclass
class Visitor:
    """Signed in; programs have `tokens`, by their names."""

    socket: Path
    site: str
    session: aiohttp.ClientSession
    tokens: Mapping[str, str]
    bodies: dict[str, str] = field(default_factory=dict)
    """The last answer of each path."""

    async def ask(self, address: Address) -> float:
        """Ask for something; returns the seconds until all of it is here."""
        token = self.tokens.get(address.by)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        began = time.perf_counter()
        async with self.session.get(URL(self.site + address.path, encoded=True), headers=headers) as answer:
            body = await answer.text()
        took = time.perf_counter() - began
        if answer.status not in GOOD:
            raise RuntimeError(f"{address.path}: {answer.status}: {body[-2000:]}")
        self.bodies[address.path] = body
        return took

    @asynccontextmanager
    async def streams(self, page: str, number: int) -> AsyncIterator[None]:
        """So many browsers have a page open during the block, each with a sign-in of its own: one may have a few pages open."""
        found = _STREAM.search(self.bodies[page])
        assert found is not None, f"{page} has no stream"
        url = URL(self.site + html.unescape(found[1]), encoded=True)
        tasks = [asyncio.create_task(self._read(url)) for _ in range(number)]
        try:
            yield
            if ended := [task for task in tasks if task.done()]:
                raise RuntimeError(f"{len(ended)} of {number} streams ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, url: URL) -> None:
        async with (
            _signed_in(self.socket) as (_, session),
            session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer,
        ):
            async for _ in answer.content.iter_any():
                pass


@asynccontextmanager
async def visitor(socket: Path, tokens: Mapping[str, str]) -> AsyncIterator[Visitor]:
    """Somebody with a link of the daemon with this control socket."""
    async with _signed_in(socket) as (site, session):
        yield Visitor(socket, site, session, tokens)


@asynccontextmanager
async def _signed_in(socket: Path) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The address of the site, and what is signed in there."""
    url = str((await ask(socket, "POST", "/dashboard/links"))["url"])
    parts = urlsplit(url)
    site = f"{parts.scheme}://{parts.netloc}"
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(url, headers={"Origin": site}, allow_redirects=False) as answer:
            if answer.status != 303:
                raise RuntimeError(f"signing in: {answer.status}")
        yield site, session
