"""One's own sign-ins, and the way to end them all."""

from __future__ import annotations

from aiohttp import web

from shardd.dashboard.sign_ins import IDLE, LASTS, How, SignIn
from shardd.dashboard.site import Site
from shardd.words import count


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def account(_: web.Request, sign_in: SignIn) -> web.Response:
        shown = [(one, site.sign_ins.age(one), site.sign_ins.idle(one)) for one in site.sign_ins.of_user(sign_in)]
        return site.page("account.html", sign_in, sign_ins=shown, proxy=How.PROXY, lasts=LASTS, longest_idle=IDLE)

    async def sign_out_everywhere(_: web.Request, sign_in: SignIn) -> web.Response:
        ended = site.sign_ins.of_user(sign_in)
        for one in ended:
            site.sign_ins.end(one)
        await site.signed(sign_in, "sign out everywhere", count(len(ended), "sign-in"))
        return web.Response(headers={"HX-Redirect": "/"})

    return [
        web.get("/account", site.signed_in(account)),
        web.post(
            "/account/sign-out-everywhere",
            site.signed_in(sign_out_everywhere, operate=False, act="sign out everywhere"),
        ),
    ]
