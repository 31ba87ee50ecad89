"""The first page: is everything well, and if not, what is wrong and what to do about it. It changes as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import HEADERS, Site
from shardd.dashboard.words_of_status import head_word
from shardd.errors import SharddError
from shardd.tasks import end_tasks

EVERY: Final = 1.0
"""Seconds between looks while somebody watches."""
ALIVE: Final = 15.0
"""Seconds after which a stream without news says that it is there."""


class Live:
    """The overview's changing part, rendered once for all who watch, and only while somebody does."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._html = ""
        self._changed = asyncio.Condition()
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None

    async def render(self) -> str:
        """As it is now."""
        try:
            status = await self._site.supervisor.status()
        except SharddError as error:
            return self._site.render("overview-live.html", None, status=None, error=str(error))
        return self._site.render("overview-live.html", None, status=status, word=head_word(status))

    async def changes(self) -> AsyncIterator[str | None]:
        """The part whenever it has changed; None when it has not for a while."""
        self._watchers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        seen = ""
        try:
            while True:
                try:
                    async with asyncio.timeout(ALIVE), self._changed:
                        while self._html == seen:
                            await self._changed.wait()
                        seen = self._html
                    yield seen
                except TimeoutError:
                    yield None
        finally:
            self._watchers -= 1

    async def close(self) -> None:
        """End all streams."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _look(self) -> None:
        while self._watchers:
            html = await self.render()
            async with self._changed:
                if html != self._html:
                    self._html = html
                    self._changed.notify_all()
            await asyncio.sleep(EVERY)


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""

    async def overview(_: web.Request, sign_in: SignIn) -> web.Response:
        return site.page("overview.html", sign_in, live=await live.render())

    async def stream(request: web.Request, _: SignIn) -> web.StreamResponse:
        answer = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await answer.prepare(request)
        async for html in live.changes():
            await answer.write(_event("overview", html))
        return answer

    return [web.get("/", site.signed_in(overview)), web.get("/live/overview", site.signed_in(stream))]


def _event(name: str, html: str | None) -> bytes:
    """A server-sent event (WHATWG HTML, 9.2.5); None: a comment."""
    if html is None:
        return b":\n\n"
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: {name}\n{lines}\n".encode()
