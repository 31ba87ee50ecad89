"""Signing in by a link from `shardd dashboard link`, or with a name and a password; and out.

The link's page asks with a button: what only looks at links (a chat's preview, a virus scanner) does not use it up. The forms are
answered only if one of our own pages sent them: another site must not sign a browser in as somebody of its choice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from shardd.config.dashboard import USER_NAME
from shardd.dashboard import fields
from shardd.dashboard.passwords import BusyError, Passwords
from shardd.dashboard.ration import Ration
from shardd.dashboard.sign_ins import LASTS, How, Role, SignIn
from shardd.dashboard.site import UNKNOWN, Site
from shardd.dashboard.throttle import Throttle
from shardd.supervisor.admin.sign_in_links import is_marked
from shardd.words import span

BY_LINK: Final = "whoever has the link"
RECORDED: Final = 60
"""Failures of an hour that the audit log has each; of more, it has the number: strangers shall not fill it."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{20,100}")
_PAGE: Final = re.compile(r"/(?:[A-Za-z0-9._~%?&=+@:-][A-Za-z0-9/._~%?&=+@:-]{0,1000})?")
"""A path of ours: `//host` would lead to another one."""
_FOREIGN: Final = "This request does not come from this page. Open it again, and sign in there."

_USED_UP: Final = (
    "This link was used already, or is older than five minutes. Make another one on the host: shardd dashboard link"
)


@dataclass(frozen=True, slots=True)
class _Somebody:
    """Who has not signed in."""

    user: str
    how: str


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""
    doors = _Doors(site)
    return [
        web.get("/sign-in", doors.show),
        web.post("/sign-in", doors.by_password),
        web.get("/sign-in/{token}", doors.show_link),
        web.post("/sign-in/{token}", doors.by_link),
        web.post("/sign-out", site.signed_in(doors.sign_out, operate=False, act="sign out")),
    ]


class _Doors:
    """The ways in, and out."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._passwords = Passwords()
        self._throttle = Throttle()
        self._ration = Ration(RECORDED)

    async def show(self, request: web.Request) -> web.Response:
        """The form."""
        return self._site.sign_in_page(request, 200)

    async def show_link(self, request: web.Request) -> web.Response:
        """The button of a link."""
        if (token := self._token(request)) is None:
            return self._site.sorry(None, 404, "This is no link for signing in. Copy it whole.")
        if not (await self._site.supervisor.ask("GET", f"/dashboard/links/{token}"))["good"]:
            return self._site.sorry(None, 410, _USED_UP)
        return self._site.page("sign-in-link.html", None, token=token)

    async def by_link(self, request: web.Request) -> web.Response:
        """The link's button was pressed."""
        site = self._site
        if site.gate.is_from_another_page(request, must_say=True):
            return site.sorry(None, 403, _FOREIGN)
        token = self._token(request)
        if token is None or not (await site.supervisor.ask("POST", f"/dashboard/links/{token}/redeem"))["redeemed"]:
            await self._failed(_Somebody("", How.LINK), "the link was used already, or is too old")
            return site.sorry(None, 403, _USED_UP)
        return await self._begin(request, BY_LINK, How.LINK, Role.OPERATE, "/")

    async def by_password(self, request: web.Request) -> web.Response:
        """The form was sent."""
        site, throttle = self._site, self._throttle
        if site.gate.is_from_another_page(request, must_say=True):
            return site.sorry(None, 403, _FOREIGN)
        form = await fields.form(request)
        name, password, to = (str(form.get(key, "")) for key in ("name", "password", "to"))
        if USER_NAME.fullmatch(name) is None:
            name = ""
        address, users = site.gate.address(request), site.access.users
        if (wait := throttle.wait(name, address)) > 0:
            words = f"Too many failed attempts. Try again in {span(wait)}."
            answer = site.sign_in_page(request, 429, words=words, user=name)
            answer.headers["Retry-After"] = str(math.ceil(wait))
            return answer
        rank = throttle.rank(name, address)
        throttle.begin(name, address)
        try:
            right = await self._passwords.are_right(users, name, password, rank)
        except BusyError as error:
            throttle.withdrawn(name, address)
            return site.sign_in_page(request, 503, words=str(error), user=name)
        if not right:
            # What names nobody may be a password that was typed into the wrong field.
            known = name if name in users else ""
            await self._failed(_Somebody(known, How.PASSWORD), "wrong password" if known else "there is no such user")
            return site.sign_in_page(request, UNKNOWN, words="The name or the password is wrong.", user=name)
        if site.access.users.get(name) != users[name]:  # while it was compared: their sign-ins have ended
            await self._failed(_Somebody(name, How.PASSWORD), "the user was changed meanwhile")
            return site.sign_in_page(request, UNKNOWN, words="This user was just changed. Try again.", user=name)
        throttle.succeeded(name, address)
        to = to if _PAGE.fullmatch(to) else "/"
        return await self._begin(request, name, How.PASSWORD, Role(users[name].role), to)

    async def sign_out(self, request: web.Request, sign_in: SignIn) -> web.Response:
        """Out."""
        site = self._site
        site.sign_ins.end(sign_in)
        await site.signed(sign_in, "sign out")
        answer = web.Response(headers={"HX-Redirect": "/"})
        answer.del_cookie(site.gate.cookie(request), secure=site.gate.is_encrypted(request), path="/")
        return answer

    async def _begin(self, request: web.Request, user: str, how: How, role: Role, to: str) -> web.Response:
        """A new sign-in, with a new cookie; what the browser had before ends."""
        site, cookie = self._site, self._site.gate.cookie(request)
        if (before := site.sign_ins.of(request.cookies.get(cookie))) is not None:
            site.sign_ins.end(before)
        made = site.sign_ins.begin(user, how, role, site.gate.address(request))
        await site.signed(made, "sign in")
        answer = web.Response(status=303, headers={"Location": to})
        secure = site.gate.is_encrypted(request)
        answer.set_cookie(
            cookie, made.cookie, max_age=int(LASTS), httponly=True, samesite="Strict", secure=secure, path="/"
        )
        return answer

    async def _failed(self, who: _Somebody, why: str) -> None:
        more = self._ration.take()
        if more is not None:
            await self._site.not_signed(who, "sign in", f"and {more:,} more before" if more else "", why=why)

    def _token(self, request: web.Request) -> str | None:
        """None: no supervisor of this node has made it."""
        token = request.match_info["token"]
        return token if _TOKEN.fullmatch(token) and is_marked(token, self._site.links_key) else None
