"""The audit log, newest first; only for those who operate."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.queue.acts import BEGUN, DONE, Acts

MOST: Final = 100
"""Acts of one page."""


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def audit(request: web.Request, sign_in: SignIn) -> web.Response:
        before, who = fields.number(request.query, "before"), fields.text(request.query, "who")
        found = await Acts(site.database).newest(MOST + 1, before=before, who=who)
        more = found[MOST - 1].id if len(found) > MOST else None
        return site.page(
            "audit.html", sign_in, acts=found[:MOST], more=more, before=before, who=who or "", fine=(DONE, BEGUN)
        )

    return [web.get("/audit", site.signed_in(audit, operate=True))]
