"""Signing in by a link from `shardd dashboard link`, and out.

The link's page asks with a button: what only looks at links (a chat's preview, a virus scanner) does not use it up.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from shardd.dashboard.sign_ins import IDLE, How, Role, SignIn
from shardd.dashboard.site import COOKIE, Site

BY_LINK: Final = "whoever has the link"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{20,100}")


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def show(request: web.Request) -> web.Response:
        return site.page("sign-in.html", None, token=_token(request))

    async def sign_in(request: web.Request) -> web.Response:
        token = _token(request)
        if token is None or not (await site.supervisor.ask("POST", f"/dashboard/links/{token}/redeem"))["redeemed"]:
            return site.sorry(None, 403, "This link was used already, or is older than five minutes. Make another one.")
        made = site.sign_ins.begin(BY_LINK, How.LINK, Role.OPERATE, request.remote or "")
        await site.acted(made, "sign in")
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(COOKIE, made.cookie, max_age=int(IDLE), httponly=True, samesite="Strict", path="/")
        return answer

    async def sign_out(_: web.Request, sign_in: SignIn) -> web.Response:
        site.sign_ins.end(sign_in)
        await site.acted(sign_in, "sign out")
        answer = web.Response(headers={"HX-Redirect": "/"})
        answer.del_cookie(COOKIE)
        return answer

    return [
        web.get("/sign-in/{token}", show),
        web.post("/sign-in/{token}", sign_in),
        web.post("/sign-out", site.signed_in(sign_out, operate=False)),
    ]


def _token(request: web.Request) -> str | None:
    token = request.match_info["token"]
    return token if _TOKEN.fullmatch(token) else None
