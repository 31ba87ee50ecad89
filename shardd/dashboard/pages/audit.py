"""The audit log, newest first; only for those who operate."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.acts import Acts

MOST: Final = 100
"""Acts of one page."""
_ID: Final = re.compile(r"[0-9]{1,18}")


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def audit(request: web.Request, sign_in: SignIn) -> web.Response:
        before, who = request.query.get("before") or None, request.query.get("who") or None
        if before is not None and _ID.fullmatch(before) is None:
            raise UsageError(f"before: {before[:40]!r} is not the number of an act; write one such as 100")
        found = await Acts(site.database).newest(
            MOST + 1, before=None if before is None else int(before), who=None if who is None else who.replace("\0", "")
        )
        more = found[MOST - 1].id if len(found) > MOST else None
        return site.page("audit.html", sign_in, acts=found[:MOST], more=more, before=before, who=who or "")

    return [web.get("/audit", site.signed_in(audit, operate=True))]
