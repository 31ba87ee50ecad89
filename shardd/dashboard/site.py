"""What every page of the site has in common: who is signed in and what they may do, its templates, its headers, its answers.

**Acts** are requests other than GET, by htmx. The handler is wrapped by `Site.signed_in`, which lets nobody through without the
role `operate` and the token of the page. It does its work within `Site.acting`, and answers with `Site.done`: its words appear on
the page (`role="status"`), whose content is then asked for anew, as a whole page. Every error is answered with `Site.sorry`:
words on the page (`role="alert"`) when it was htmx that asked; they say that nothing was changed only where that is certain.
What cannot be undone asks first: `hx-confirm="Cancel 12 jobs? …"` on a button opens a dialog whose buttons are the button's own
words, and Back. A template has a button only `{% if sign_in.may_operate %}`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jinja2
from aiohttp import web

from shardd import __version__
from shardd.config.values.network import is_loopback
from shardd.dashboard import fields, static_files
from shardd.dashboard.audit import Audit
from shardd.dashboard.brief import brief
from shardd.dashboard.fair_database import LANE
from shardd.dashboard.gate import Gate, NobodyError
from shardd.dashboard.looks import Looks
from shardd.dashboard.shares import Shares, TooManyError
from shardd.dashboard.sign_ins import How, Role, SignIn, SignIns
from shardd.dashboard.supervisor_client import SupervisorClient
from shardd.errors import (
    DatabaseError,
    NotRunningError,
    NotStartedError,
    SharddError,
    UnreachableError,
    UnsureError,
    UsageError,
)
from shardd.queue.act_log import Acting, Actor, UnderWay
from shardd.queue.acts import DONE
from shardd.queue.database import Database
from shardd.states import DeviceState, JobState
from shardd.supervisor.admin.dashboard import Access
from shardd.words import ago, count, moment_text, sentences, span

UNKNOWN: Final = 401
"""The status of an answer to somebody who is not signed in."""
FORM_TOKEN: Final = "X-Shardd-Token"  # noqa: S105  # the name of a header
ANY_PATH: Final = r"/{path:[\s\S]*}"
"""The route of what no other has; `.` would leave out a path with a line break in it."""
THINGS: Final = ("device", "campaign", "webhook", "job")
"""What a path may name."""
UNSURE: Final = "It is not known whether this was done: look before you do it again"
NOTHING: Final = "Nothing was changed"
SAFE: Final = frozenset({"GET", "HEAD"})
"""Methods of requests that change nothing."""
AT_ONCE: Final = 96
"""Requests of users that are answered at a time, beside streams."""
AT_ONCE_OF_ONE: Final = 48
"""Those of one user."""
HEADERS: Final = {
    # Neither a script nor a style inside a page, and nothing from or to another host.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "shardd",
}
ACT: Final = web.RequestKey("act", str)
"""The key of a request under which it has the name of its act in the audit log."""
CURRENT: Final[ContextVar[web.Request]] = ContextVar("request")
"""The request that is being answered."""
_STATES: Final = re.compile(rf"\b({'|'.join(one for one in (*JobState, *DeviceState) if '_' in one)})\b")
Page = Callable[[web.Request, SignIn], Awaitable[web.StreamResponse]]


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(str(files("shardd.dashboard"))) / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = static_files.url_of
    environment.filters.update(
        ago=ago,
        since=_since,
        spoken=spoken,
        count=count,
        span=span,
        moment=moment_text,
        number=lambda value: f"{value:,}",
        tenths=lambda value: f"{value:,.1f}",
        person=_person,
        at=_at,
    )
    return environment


@dataclass(slots=True)
class Site:
    """What pages use."""

    node: str
    database: Database
    supervisor: SupervisorClient
    access: Access
    links_key: bytes
    """Of the marks of sign-in links."""
    sign_ins: SignIns = field(default_factory=SignIns)
    templates: jinja2.Environment = field(default_factory=_templates)
    audit: Audit = field(init=False)
    answering: Shares = field(init=False)
    gate: Gate = field(init=False)
    looks: Looks = field(init=False)

    def __post_init__(self) -> None:
        self.audit = Audit(self.database, self.node)
        self.answering = Shares(
            "are answered", "wait until one of them has its answer", most=AT_ONCE, most_of_one=AT_ONCE_OF_ONE
        )
        self.gate = Gate(self.access)
        self.looks = Looks(self.database)

    def configure(self, access: Access) -> None:
        """Let a new config decide who may use the page. The sign-ins of those for whom it has changed end."""
        old, self.access, self.gate = self.access, access, Gate(access)
        changed = {name for name in {*old.users, *access.users} if old.users.get(name) != access.users.get(name)}
        proxies = operator.attrgetter("trusted_header", "trusted_proxies", "trusted_role")
        proxies_changed = proxies(old) != proxies(access)
        self.sign_ins.end_those(
            lambda one: one.how is not How.LINK and (one.user in changed or (one.how is How.PROXY and proxies_changed))
        )

    def address_of(self, request: web.Request) -> str:
        """From where a request comes, as the config of now tells."""
        return self.gate.address(request)

    def render(self, name: str, sign_in: SignIn | None, **values: Any) -> str:
        """A template, with what all of them may use."""
        return self.templates.get_template(name).render(
            node=self.node, version=__version__, sign_in=sign_in, now=datetime.now(UTC), **values
        )

    def page(self, name: str, sign_in: SignIn | None, *, status: int = 200, **values: Any) -> web.Response:
        """A whole page."""
        return web.Response(text=self.render(name, sign_in, **values), content_type="text/html", status=status)

    def sorry(self, sign_in: SignIn | None, status: int, words: str, lines: Sequence[str] = ()) -> web.Response:
        """A page that says why there is no other; to htmx, words for the page that is open. `lines`: a list below the words."""
        words, lines = brief(words), [brief(line) for line in lines]
        if CURRENT.get().headers.get("HX-Request") != "true":
            return self.page("sorry.html", sign_in, status=status, words=words, lines=lines)
        answer = self.page("said.html", sign_in, status=status, words=words, lines=lines, failed=True)
        answer.headers.update({"HX-Retarget": "#failed", "HX-Reswap": "innerHTML"})
        return answer

    def done(self, sign_in: SignIn, words: str) -> web.Response:
        """The answer to an act that was carried out: words for the page that is open, which then shows its content anew."""
        answer = self.page("said.html", sign_in, words=words, failed=False)
        answer.headers.update({"HX-Retarget": "#done", "HX-Reswap": "innerHTML", "HX-Trigger": "acted"})
        return answer

    def acting(self, actor: Actor, target: str, detail: str = "") -> AbstractAsyncContextManager[Acting]:
        """Do something in the database, with its row of the audit log: the request's act, and a `target` such as `device d1`.

        Errors of the block are written by `signed_in`. No text of a message and no number of a person: the log is kept when
        somebody is forgotten. Raises DatabaseError and UnsureError.
        """
        return self.audit.acting(actor, self._address(), CURRENT.get()[ACT], target, detail)

    def under_way(self, actor: Actor, target: str, detail: str = "") -> AbstractAsyncContextManager[UnderWay]:
        """Do something that is not one transaction, with a row before and after it. Raises DatabaseError: then it must not begin.

        A SharddError that leaves the block is recorded twice: here, and by `signed_in`.
        """
        return self.audit.under_way(actor, self._address(), CURRENT.get()[ACT], target, detail)

    async def acted(self, actor: Actor, act: str, target: str = "", detail: str = "", *, result: str = DONE) -> None:
        """Write to the audit log what has happened in this request. `result`: why it was not carried out."""
        await self.audit.record(actor, self._address(), act, target, detail, result=result)

    async def signed(self, actor: Actor, act: str, detail: str = "") -> None:
        """Write to the audit log that somebody signed in or out, which may happen often."""
        await self.audit.signed(actor, self._address(), act, detail)

    async def not_signed(self, actor: Actor, act: str, detail: str, *, why: str) -> None:
        """Write to the audit log that somebody could not sign in."""
        await self.audit.record_late(actor, self._address(), act, detail, result=why)

    async def refused(self, actor: Actor, target: str, detail: str = "", *, why: str) -> None:
        """Write to the audit log that somebody was refused, which may happen often."""
        await self.audit.refuse(actor, self._address(), CURRENT.get()[ACT], target, detail, why=why)

    async def failed(self, actor: Actor, target: str, detail: str = "", *, error: Exception) -> None:
        """Write to the audit log that something was not done, or perhaps."""
        if isinstance(error, UnsureError):
            await self.acted(actor, CURRENT.get()[ACT], target, detail, result=failure(error)[1])
        else:
            why = failure(error)[1] if isinstance(error, SharddError) else str(error)
            await self.refused(actor, target, detail, why=why)

    def _address(self) -> str:
        return self.gate.address(CURRENT.get())

    def sign_in_page(self, request: web.Request, status: int, *, words: str = "", user: str = "") -> web.Response:
        """The page that tells how to sign in, with a form for those who have a password."""
        return self.page(
            "sign-in.html",
            None,
            status=status,
            access=self.access,
            words=words,
            user=user,
            to=request.path_qs if request.method == "GET" and status == UNKNOWN else "/",
            encrypted=self.gate.is_encrypted(request) or is_loopback(self.gate.address(request)),
        )

    def missing(self) -> list[web.RouteDef]:
        """The answer to every other path, in words."""
        return [web.route("*", ANY_PATH, self.signed_in(self._no_such_page))]

    async def _no_such_page(self, _: web.Request, sign_in: SignIn) -> web.Response:
        return self.sorry(sign_in, 404, "There is no such page.")

    def signed_in(
        self,
        page: Page,
        *,
        operate: bool | None = None,
        act: str | Callable[[web.Request], str] | None = None,
        lasts: bool = False,
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler for those who are signed in; the others get the page that tells how to.

        `operate`: only for those who may; None: if the request is other than GET. `act`: the name of what the page does in the
        audit log, also of what is refused. `lasts`: its answer goes on, and something else bounds how many of these one user has.
        """

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                sign_in = await self._who(request)
            except NobodyError as error:
                return self.sorry(None, 403, str(error))
            if sign_in is None:
                return await self._unknown(request)
            LANE.set(sign_in.lane)
            request[ACT] = request.method if act is None else act if isinstance(act, str) else act(request)
            may = request.method in SAFE if operate is None else not operate
            try:
                with nullcontext() if lasts else self.answering.one_more(sign_in.lane):
                    return await self._answer(request, sign_in, page, all_may=may)
            except TooManyError as error:
                return self.sorry(sign_in, 429, sentences(str(error)))

        return handle

    async def _answer(self, request: web.Request, sign_in: SignIn, page: Page, *, all_may: bool) -> web.StreamResponse:
        """`all_may`: also those who only look."""
        acts = request.method not in SAFE
        if acts and (self.gate.is_from_another_page(request) or not sign_in.wrote(request.headers.get(FORM_TOKEN, ""))):
            words = "This request does not come from a page of this sign-in. Reload the page."
            await self.refused(sign_in, _target(request), why=words)
            return self.sorry(sign_in, 403, words)
        if not (all_may or sign_in.may_operate):
            words = f"{sign_in.user} may look, but not operate."
            if acts:
                await self.refused(sign_in, _target(request), why=words)
            return self.sorry(sign_in, 403, words)
        # PostgreSQL cannot hold a NUL, so nothing has a name with one.
        wanted = self._no_such_page if "\0" in request.path else page
        try:
            if acts:
                wanted = await self._when_whole(request, sign_in, wanted)
            return await wanted(request, sign_in)
        except SharddError as error:
            status, words = failure(error)
            if acts:
                await self.failed(sign_in, _target(request), error=error)
                words = sentences(words, NOTHING) if isinstance(error, DatabaseError) else words
            if isinstance(error, fields.LinesError):
                return self.sorry(sign_in, status, error.text, error.lines)
            return self.sorry(sign_in, status, words)

    async def _unknown(self, request: web.Request, _: SignIn | None = None) -> web.Response:
        answer = self.sign_in_page(request, UNKNOWN)
        answer.headers["HX-Refresh"] = "true"  # htmx loads the page again, which shows how to sign in
        return answer

    async def _when_whole(self, request: web.Request, sign_in: SignIn, page: Page) -> Page:
        """What answers an act, when its form has arrived: nothing is done by who was removed meanwhile. Raises UsageError."""
        await fields.form(request)  # aiohttp keeps it for the page
        return page if self.sign_ins.lasts(sign_in) else self._unknown

    async def _who(self, request: web.Request) -> SignIn | None:
        """Who is signed in: whom the trusted proxy names, else whose cookie it is. Raises NobodyError."""
        name = self.gate.named_by_proxy(request)
        if name is None:
            return self.sign_ins.of(request.cookies.get(self.gate.cookie(request)))
        if (known := self.sign_ins.of_proxy(name)) is not None:
            return known
        user = self.access.users.get(name)
        spelled = next((one for one in self.access.users if one.casefold() == name.casefold()), None)
        # A directory may take any case: one person, whose role is in the config.
        if user is None and spelled is not None:
            raise NobodyError(f"The proxy names {name}, and dashboard.users has {spelled}: let both write it alike.")
        role = self.access.trusted_role if user is None else user.role
        if role is None:
            raise NobodyError(f"The proxy names {name}, who is not in dashboard.users; dashboard.trusted_role is null.")
        made = self.sign_ins.begin(name, How.PROXY, Role(role), self.gate.address(request))
        await self.signed(made, "sign in")
        return made


def _target(request: web.Request) -> str:
    """Of a request that is refused."""
    thing = next((one for one in THINGS if one in request.match_info), None)
    return request.path if thing is None else f"{thing} {request.match_info[thing]}"


def spoken(text: str) -> str:
    """A text in which states are written as people write them, `in doubt`: their values are for addresses and programs."""
    return _STATES.sub(lambda found: found[0].replace("_", " "), text)


def _person(address: str) -> str:
    """An address as recipients are written: with + where it is a number."""
    return f"+{address}" if address.isdigit() else address


def _since(moment: float) -> str:
    """How long ago a moment in POSIX seconds was, on a part that is rendered every second."""
    return ago(datetime.fromtimestamp(moment, UTC))


def _at(moment: datetime | float | None) -> str:
    """A moment without how long ago it is: on a page that stays open, that would be wrong soon. Empty for None."""
    if isinstance(moment, int | float):
        moment = datetime.fromtimestamp(moment, UTC)
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def failure(error: SharddError) -> tuple[int, str]:
    """The status and the words of an answer."""
    match error:
        case UsageError():
            return 400, str(error)
        case UnsureError():
            return 503, f"{UNSURE} ({error})."
        case DatabaseError():
            return 503, f"The database does not answer: {error}"
        case NotRunningError():
            return 503, "The supervisor does not answer."
        case NotStartedError() | UnreachableError():
            return 503, f"The supervisor does not answer: {error}"
        case _:
            return 500, str(error)
