"""What every page of the site has in common: who is signed in, its templates, its headers, its answers to errors."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jinja2
from aiohttp import web

from shardd import __version__
from shardd.dashboard import static_files
from shardd.dashboard.sign_ins import SignIn, SignIns
from shardd.dashboard.supervisor_client import SupervisorClient
from shardd.errors import DatabaseError, NotRunningError, SharddError, UsageError
from shardd.queue.database import Database
from shardd.words import ago, count, moment_text, span

COOKIE: Final = "shardd"
FORM_TOKEN: Final = "X-Shardd-Token"  # noqa: S105  # the name of a header
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
}
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
        ago=ago, count=count, span=span, moment=moment_text, number=lambda value: f"{value:,}", since=_since
    )
    return environment


@dataclass(slots=True)
class Site:
    """What pages use."""

    node: str
    database: Database
    supervisor: SupervisorClient
    sign_ins: SignIns = field(default_factory=SignIns)
    templates: jinja2.Environment = field(default_factory=_templates)

    def render(self, name: str, sign_in: SignIn | None, **values: Any) -> str:
        """A template, with what all of them may use."""
        return self.templates.get_template(name).render(
            node=self.node, version=__version__, sign_in=sign_in, now=datetime.now(UTC), **values
        )

    def page(self, name: str, sign_in: SignIn | None, *, status: int = 200, **values: Any) -> web.Response:
        """A whole page."""
        return web.Response(text=self.render(name, sign_in, **values), content_type="text/html", status=status)

    def sorry(self, sign_in: SignIn | None, status: int, words: str) -> web.Response:
        """A page that says why there is no other."""
        return self.page("sorry.html", sign_in, status=status, words=words)

    def missing(self) -> list[web.RouteDef]:
        """The answer to every other path, in words."""

        async def handle(_: web.Request, sign_in: SignIn) -> web.Response:
            return self.sorry(sign_in, 404, "There is no such page.")

        return [web.get("/{path:.*}", self.signed_in(handle))]

    def signed_in(self, page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler for those who are signed in; the others get the page that tells how to."""

        async def handle(request: web.Request) -> web.StreamResponse:
            sign_in = self.sign_ins.of(request.cookies.get(COOKIE))
            if sign_in is None:
                return self.page("sign-in.html", None, status=401)
            if request.method != "GET" and not sign_in.wrote(request.headers.get(FORM_TOKEN, "")):
                return self.sorry(
                    sign_in, 403, "This request does not come from a page of this sign-in. Reload the page."
                )
            try:
                return await page(request, sign_in)
            except SharddError as error:
                return self.sorry(sign_in, *_failure(error))

        return handle


def _since(at: float) -> str:
    """How long a POSIX time is ago."""
    return span(max(0.0, time.time() - at))


def _failure(error: SharddError) -> tuple[int, str]:
    """The status and the words of an answer."""
    match error:
        case UsageError():
            return 400, str(error)
        case DatabaseError():
            return 503, f"The database does not answer: {error}"
        case NotRunningError():
            return 503, "The supervisor does not answer."
        case _:
            return 500, str(error)
