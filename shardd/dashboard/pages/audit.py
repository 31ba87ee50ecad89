"""The audit log, newest first, and on the overview the acts of whose end nothing is known; only for those who operate."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.live import Live
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import THINGS, Site
from shardd.queue.acts import BEGUN, DONE, ActFilter, Acts

MOST: Final = 100
"""Acts of one page."""
BUDGET: Final = 0.045
"""Seconds in which a page is searched."""
FIELDS: Final = ("who", "act", "target")
"""Those of the form."""
MOST_UNFINISHED: Final = 5
"""Acts that the overview names."""


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""

    async def audit(request: web.Request, sign_in: SignIn) -> web.Response:
        given = {name: fields.text(request.query, name) for name in FIELDS}
        before = fields.number(request.query, "before")
        found = await Acts(site.database).newest(MOST, ActFilter(**given), before=before, budget=BUDGET)
        return site.page(
            "audit.html",
            sign_in,
            acts=found.acts,
            unfinished=found.unfinished,
            older=found.older and fields.link("/audit", {**given, "before": found.older}),
            newest=before and fields.link("/audit", given),
            given=given,
            fine=(DONE, BEGUN),
        )

    live.part("overview-acts", lambda _: unfinished_acts(site), operate=True)
    return [web.get("/audit", site.signed_in(audit, operate=True))]


async def unfinished_acts(site: Site, sign_in: SignIn | None = None) -> str:
    """The part of the overview; `sign_in`: for whom it may be empty. Raises DatabaseError."""
    if sign_in is not None and not sign_in.may_operate:
        return ""
    found = await Acts(site.database).unfinished(MOST_UNFINISHED + 1)
    shown = [(one, _place(one.target)) for one in found[:MOST_UNFINISHED]]
    return site.render("overview-acts.html", None, acts=shown, more=len(found) > MOST_UNFINISHED)


def _place(target: str) -> str:
    """The page of what an act was about, such as `device d1`, `3 devices` or `jobs`."""
    what, _, name = target.partition(" ")
    if what in THINGS and what != "webhook" and name:
        return f"/{what}s/{quote(name, safe='')}"
    thing = (name if what.replace(",", "").isdigit() else what).removesuffix("s")
    return f"/{thing}s" if thing in THINGS else "/audit"
