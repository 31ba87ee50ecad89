"""What the owner of a phone sees behind a pairing link: a QR code or a code to type, what to press, and what came of it.

There is no sign-in, and nothing else can be seen from here. The link's first page asks with a button: what only looks at links (a
chat's preview, a virus scanner) does not use it up. From then on the link is its browser's, by a cookie that is good for these
pages only. A link that does not work says so in the same words whatever the reason is.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import math
import re
import secrets
from typing import Final

import segno
from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.linking import LAST, Kind, Linking, OpenLink, Shown
from shardd.dashboard.misses import Misses
from shardd.dashboard.server_sent import ALIVE, as_event, stream_of_events
from shardd.dashboard.site import FORM_TOKEN, Site
from shardd.dashboard.words_of_pairing import AGAIN, FOR_OWNER
from shardd.errors import SharddError, UsageError
from shardd.pairing.attempt import read_number
from shardd.queue.pairing_links import PairingLink
from shardd.supervisor.http_listener import Handler
from shardd.words import count

COOKIE: Final = "shardd-pair"
PATH: Final = "/pair"
LASTS: Final = 24 * 3600
"""Seconds for which the browser keeps the cookie; the link ends before."""
MOST_STREAMS: Final = 3
"""Open pages of one browser."""
MOST_MISSES: Final = 30
"""Links that do not work, of one address in a minute."""
QUIET_ZONE: Final = 4
"""Light modules around a QR code."""
WORDS: Final = {
    Kind.READY: "",
    Kind.STARTING: "Asking WhatsApp for a code…",
    Kind.QR: "Scan this code with WhatsApp on the phone. A new one replaces it by itself.",
    Kind.CODE: "Type this code in WhatsApp on the phone.",
    Kind.OVER: "This link does not work any more. Ask whoever sent it to you for a new one.",
}
LONGEST_NUMBER: Final = 40
"""Characters of a phone number that are read."""
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_DEAD: Final = 410


def routes(site: Site, linking: Linking) -> list[web.RouteDef]:
    """See the module."""
    pages = _Pages(site, linking)
    return [
        web.get(PATH, pages.guarded(pages.page)),
        web.get(f"{PATH}/live", pages.guarded(pages.live)),
        web.post(f"{PATH}/begin", pages.guarded(pages.begin)),
        web.get(f"{PATH}/{{secret:.*}}", pages.guarded(pages.link)),
        web.post(f"{PATH}/{{secret:.*}}", pages.guarded(pages.open)),
    ]


class _Pages:
    def __init__(self, site: Site, linking: Linking) -> None:
        self._site = site
        self._linking = linking
        self._misses = Misses(MOST_MISSES)

    def guarded(self, handler: Handler) -> Handler:
        """With words for the case that something does not answer, such as the database."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except UsageError as error:
                return self._site.page("pairing/dead.html", None, status=400, words=_sentence(error))
            except SharddError:
                words = "Something does not work here right now. Try again in a minute."
                return self._site.page("pairing/dead.html", None, status=503, words=words)

        return handle

    # ---- before the link is opened

    async def link(self, request: web.Request) -> web.StreamResponse:
        """The first page of a link."""
        if self._misses.wait(self._site.gate.address(request)):
            return self._too_many()
        found = await self._unopened(request)
        return await self._elsewhere(request) if found is None else self._first_page(request, found)

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Make the link that of this browser, and begin."""
        if self._misses.wait(self._site.gate.address(request)):
            return self._too_many()
        found = await self._unopened(request)
        if found is None:
            return await self._elsewhere(request)
        try:
            number = await self._number(request)
        except UsageError as error:
            return self._first_page(request, found, error=_sentence(error), number=await _written(request))
        browser = secrets.token_urlsafe(32)
        opened = await self._linking.links.open(request.match_info["secret"], browser)
        if not opened or (one := await self._linking.of(browser)) is None:
            return self._dead()
        await self._linking.begin(one, number)
        answer = web.Response(status=303, headers={"Location": PATH})
        secure = self._site.gate.is_encrypted(request)
        answer.set_cookie(COOKIE, browser, max_age=LASTS, httponly=True, samesite="Lax", path=PATH, secure=secure)
        return answer

    async def _unopened(self, request: web.Request) -> PairingLink | None:
        secret = request.match_info["secret"]
        return await self._linking.links.unopened(secret) if _SECRET.fullmatch(secret) else None

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        """The answer to a link that cannot be opened: its own browser goes on where it was."""
        if await self._linking.of(request.cookies.get(COOKIE)) is not None:
            return web.Response(status=303, headers={"Location": PATH})
        self._misses.add(self._site.gate.address(request))
        return self._dead()

    def _first_page(
        self, request: web.Request, link: PairingLink, *, error: str = "", number: str = ""
    ) -> web.Response:
        values = {"action": request.path, "error": error, "number": number, "ends": _ends(link.left)}
        return self._site.page("pairing/link.html", None, status=422 if error else 200, link=link, **values)

    def _too_many(self) -> web.Response:
        words = "Too many links that do not work were opened from here. Wait a minute."
        return self._site.page("pairing/dead.html", None, status=429, words=words)

    def _dead(self) -> web.Response:
        return self._site.page("pairing/dead.html", None, status=_DEAD)

    # ---- afterwards

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The page of the link that this browser has opened."""
        browser = request.cookies.get(COOKIE)
        if browser is None or (one := await self._linking.of(browser)) is None:
            return self._dead()
        parts = self._parts(one, one.shown)
        return self._site.page("pairing/page.html", None, link=one.link, token=_form_token(browser), parts=parts)

    async def begin(self, request: web.Request) -> web.StreamResponse:
        """Begin, or begin again."""
        browser = request.cookies.get(COOKIE)
        if browser is None or (one := await self._linking.of(browser)) is None:
            return web.Response(headers={"HX-Refresh": "true"})
        given = request.headers.get(FORM_TOKEN, "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, _form_token(browser).encode()):
            return _wrong(403, "This request does not come from the page of the link. Reload the page.")
        try:
            number = await self._number(request)
        except UsageError as error:
            return _wrong(422, _sentence(error))
        await self._linking.begin(one, number)
        return web.Response(status=204)

    async def live(self, request: web.Request) -> web.StreamResponse:
        """What changes on the page, as it does."""
        one = await self._linking.of(request.cookies.get(COOKIE))
        answer = stream_of_events()
        await answer.prepare(request)
        if one is None or one.pages >= MOST_STREAMS:
            words = WORDS[Kind.OVER] if one is None else "This page is open too often."
            told = self._site.render("pairing/words.html", None, words=words, failed=True)
            parts = {"words": told, "code": "", "ways": "", "ends": "", "over": ""}
            await answer.write(b"".join(as_event(name, part) for name, part in parts.items()))
            return answer
        sent: dict[str, str] = {}
        async for shown in one.changes():
            if request.transport is None or request.transport.is_closing():
                break
            now = self._parts(one, shown)
            changed = {name: part for name, part in now.items() if sent.get(name) != part}
            await answer.write(b"".join(as_event(name, part) for name, part in changed.items()) or ALIVE)
            sent = now
            if shown.kind in LAST:
                await answer.write(as_event("over", ""))
        return answer

    def _parts(self, one: OpenLink, shown: Shown) -> dict[str, str]:
        """The parts of the page that change, each by itself: what somebody types is not lost with each new QR code."""
        render = self._site.render
        return {
            "words": render("pairing/words.html", None, words=_words(shown), failed=shown.kind is Kind.FAILED),
            "code": render("pairing/code.html", None, shown=shown, picture=_picture(shown), typed=_spaced(shown.code)),
            "ways": render("pairing/ways.html", None, kind=shown.kind, again=shown.failure in AGAIN),
            "ends": "" if shown.kind in LAST else _ends(one.link.left),
        }

    async def _number(self, request: web.Request) -> str | None:
        """The number to pair with by a typed code; None: by a QR code. Raises UsageError."""
        if (await fields.form(request)).get("way") != "code":
            return None
        if not (text := await _written(request)):
            raise UsageError("write the phone's number, such as +4915112345678")
        return read_number(text, self._linking.settings.region)


async def _written(request: web.Request) -> str:
    return str((await fields.form(request)).get("number", "")).strip()[:LONGEST_NUMBER]


def _wrong(status: int, words: str) -> web.Response:
    """Words for the place beside a form."""
    return web.Response(text=html.escape(words), status=status, content_type="text/html")


def _form_token(browser: str) -> str:
    """What only the page of this browser knows; any node can tell."""
    return hashlib.sha256(b"form " + browser.encode()).hexdigest()


def _sentence(error: UsageError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _words(shown: Shown) -> str:
    match shown.kind:
        case Kind.FAILED:
            return FOR_OWNER[shown.failure]
        case Kind.SCANNED:
            return f"+{shown.number} is linked. Its first login takes a few seconds: leave this page open."
        case Kind.PAIRED:
            return f"Done: +{shown.number} is linked. You can close this page."
        case _:
            return WORDS[shown.kind]


def _picture(shown: Shown) -> str | None:
    """The QR code as the address of an image: dark on light, whatever the theme; most cameras cannot read it otherwise."""
    if shown.kind is not Kind.QR:
        return None
    code = segno.make(shown.code, error="l", boost_error=False, micro=False)
    address: str = code.svg_data_uri(border=QUIET_ZONE, dark="#000", light="#fff", omitsize=True)
    return address


def _spaced(code: str) -> str:
    """`ABCD-EFGH`, as on the phone."""
    letters = code.replace("-", "")
    return f"{letters[:4]}-{letters[4:]}"


def _ends(left: float) -> str:
    minutes = max(1, math.ceil(left / 60))
    return f"This link works for {count(minutes, 'more minute')}, and only in the browser in which it is used first."
