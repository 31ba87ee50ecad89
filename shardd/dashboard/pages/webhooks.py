"""Webhooks: how far each is, what its receiver refused, and trying again."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from shardd.dashboard.kept import Kept
from shardd.dashboard.live import Live
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.webhooks import WebhookAdmin, WebhookRow, state_of
from shardd.words import count

MOST: Final = 200
"""Events that are listed of those that were set aside."""
PATIENCE: Final = 1.0
"""Seconds for which a page waits for the state of all webhooks."""
LIVE: Final = "webhooks"


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""
    admin = WebhookAdmin(site.database)

    async def all_of_them(_: str = "") -> list[tuple[str, str, WebhookRow | None]]:
        """(name, state, row) of those in the config and those in the database."""
        rows = {row.name: row for row in await admin.all()}
        configured = (await site.supervisor.settings()).node.webhooks
        names = sorted(rows.keys() | set(configured))
        return [(name, state_of(rows.get(name), configured=name in configured), rows.get(name)) for name in names]

    kept = Kept(all_of_them, asyncio.Lock())

    async def rows(_: str = "", patience: float = 0.0) -> str:
        answer = await kept.wait("", patience)
        if answer is None:
            return site.render("webhooks-rows.html", None, webhooks=None, error=None)
        return site.render("webhooks-rows.html", None, webhooks=answer.value, error=answer.error)

    live.part(LIVE, rows)

    async def webhooks(_: web.Request, sign_in: SignIn) -> web.Response:
        live.watch()
        return site.page("webhooks.html", sign_in, rows=await rows(patience=PATIENCE), topic=LIVE)

    async def webhook(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["webhook"]
        failures = await admin.failures(name, MOST + 1)
        state, row = next(((state, row) for one, state, row in await all_of_them() if one == name), ("", None))
        if row is None:
            why = "it has not begun yet: the running shardd has not read this config" if state else "there is none"
            return site.sorry(sign_in, 404, f"Webhook {name}: {why}.")
        return site.page("webhook.html", sign_in, webhook=row, state=state, failures=failures, shown=MOST)

    async def retry(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["webhook"]
        async with site.acting(sign_in, f"webhook {name}") as acting:
            again = await WebhookAdmin(acting.database).ask_retry(name)
            if again is None:
                raise UsageError(f"webhook {name}: unknown, or has not begun yet")
            acting.detail = f"sent once more: {count(again, 'event')}"
        kept.outdate()
        return site.done(
            sign_in,
            f"Webhook {name} is tried at once" + (f"; sent once more: {count(again, 'event')}." if again else "."),
        )

    return [
        web.get("/webhooks", site.signed_in(webhooks)),
        web.get("/webhooks/{webhook}", site.signed_in(webhook)),
        web.post("/webhooks/{webhook}/retry", site.signed_in(retry, act="retry")),
    ]
