"""The streams of server-sent events: `/live?topic=…&topic=…`, with `kind` and `device` for the topic `events`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

from shardd.dashboard.live import Live, Stream
from shardd.dashboard.pages.events import filter_of
from shardd.dashboard.server_sent import ALIVE, as_event, send_stream
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site

MOST_TOPICS: Final = 20


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""

    async def stream(request: web.Request, sign_in: SignIn) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response()  # the page asks why its stream broke off
        topics = live.names(request.query.getall("topic", [])[:MOST_TOPICS], sign_in)
        watching = Stream(
            sign_in,
            topics,
            gone=lambda: request.transport is None or request.transport.is_closing(),
            wants=filter_of(request.query).wants,
        )
        return await send_stream(request, parts(watching))

    async def parts(watching: Stream) -> AsyncGenerator[bytes]:
        async with aclosing(live.changes(watching)) as changes:
            async for change in changes:
                yield ALIVE if change is None else as_event(*change)

    return [web.get("/live", site.signed_in(stream, lasts=True))]
