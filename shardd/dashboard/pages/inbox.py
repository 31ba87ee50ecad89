"""The inbox: what people wrote to devices, newest first, and one message with all that is known of it."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.live import Live
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.queue.inbox import InboxAdmin
from shardd.words import json_text

MOST: Final = 50
"""Messages of one page."""


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""
    admin = InboxAdmin(site.database)

    async def inbox(request: web.Request, sign_in: SignIn) -> web.Response:
        live.watch()
        device = fields.text(request.query, "device")
        before = fields.number(request.query, "before")
        found = await admin.newest(MOST + 1, device_id=device, before=before)
        return site.page(
            "inbox.html",
            sign_in,
            messages=found[:MOST],
            device=device,
            before=before,
            next=found[MOST - 1].id if len(found) > MOST else None,
        )

    async def message(request: web.Request, sign_in: SignIn) -> web.Response:
        number = fields.number(request.match_info, "message")
        found = None if number is None else await admin.show(number)
        if found is None:
            return site.sorry(sign_in, 404, f"Message {number} is unknown, or was deleted after inbox.keep.")
        return site.page("message.html", sign_in, message=found, details=json_text(found.details, indent=2))

    return [web.get("/inbox", site.signed_in(inbox)), web.get("/inbox/{message:[0-9]+}", site.signed_in(message))]
