"""Somebody who talks HTTP to the dashboard without a browser, from an address of their own."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from shardd.control_client import ask
from shardd.dashboard.passwords import make_hash
from tests.support.daemon import Daemon

PASSWORD: Final = "correct horse battery"
USERS: Final = {
    "ada": {"password": make_hash(PASSWORD), "role": "operate"},
    "bob": {"password": make_hash(PASSWORD), "role": "look"},
}
_FORM_TOKEN: Final = re.compile(r'"X-Shardd-Token": "([A-Za-z0-9_-]+)"')


class Visitor:
    """Keeps cookies, follows no redirects, and says that its requests come from the site's own pages."""

    def __init__(self, session: aiohttp.ClientSession, site: str) -> None:
        self.session = session
        self.site = site
        self.form_token = ""

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        return await self.request("GET", path, headers=headers)

    async def request(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """With what a page of this sign-in sends, unless `headers` has it otherwise; the body has been read."""
        headers = {"Origin": self.site, "X-Shardd-Token": self.form_token} | options.pop("headers", {})
        answer = await self.session.request(method, self.site + path, headers=headers, allow_redirects=False, **options)
        await answer.read()
        return answer

    async def try_password(self, name: str, password: str, *, to: str = "/", **headers: str) -> aiohttp.ClientResponse:
        form = {"name": name, "password": password, "to": to}
        return await self.request("POST", "/sign-in", data=form, headers=headers)

    async def sign_in(self, name: str) -> None:
        answer = await self.try_password(name, PASSWORD)
        assert answer.status == 303, await answer.text()
        await self.read_form_token()

    async def sign_in_by_link(self, daemon: Daemon) -> None:
        await self.open_link(await make_link(daemon))

    async def open_link(self, path: str) -> None:
        answer = await self.request("POST", path)
        assert answer.status == 303, await answer.text()
        await self.read_form_token()

    async def read_form_token(self) -> None:
        found = _FORM_TOKEN.search(await (await self.get("/account")).text())
        assert found is not None
        self.form_token = found[1]

    @property
    def cookie(self) -> str:
        """The value of the sign-in's cookie."""
        return next(cookie.value for cookie in self.session.cookie_jar)


async def make_link(daemon: Daemon) -> str:
    """The path of a link that signs somebody in."""
    url = str((await ask(daemon.socket, "POST", "/dashboard/links"))["url"])
    return "/" + url.split("/", 3)[3]


@asynccontextmanager
async def visitor(daemon: Daemon, address: str = "127.0.0.1") -> AsyncGenerator[Visitor]:
    """`address`: one of this host."""
    async with visitor_of(f"http://{daemon.settings['dashboard']['listen']}", address) as visitor:
        yield visitor


@asynccontextmanager
async def visitor_of(site: str, address: str = "127.0.0.1") -> AsyncGenerator[Visitor]:
    connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=0)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
        yield Visitor(session, site)
