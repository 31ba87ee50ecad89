"""The dashboard behind nginx and Caddy with the guide's own lines: real proxies, TLS, a real browser."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, expect

from shardd.control_client import ask
from tests.acceptance.dashboard.looks import is_said
from tests.fixtures.browser import free_port
from tests.support.certificate import make_certificate
from tests.support.daemon import PATIENCE, Daemon, Producer
from tests.support.guide import blocks
from tests.support.programs import program
from tests.support.visitor import PASSWORD, USERS, Visitor

NGINX = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


LOOK_AGAIN = 0.02
"""Seconds: a proxy announces nothing."""


@dataclass
class Proxy:
    """A proxy with the guide's lines in front of a dashboard."""

    name: str
    folder: Path
    port: int

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self, behind: str, more: str = "") -> list[str]:
        """Write its files; `behind`: where the dashboard listens; `more`: lines for what is passed on to it."""
        pem = str(make_certificate(self.folder))
        (block,) = (block for block in blocks("dashboard") if block.language in {self.name, f"{self.name}file"})
        lines = block.text.replace("127.0.0.1:8484", behind)
        if self.name == "nginx":
            for old, new in (
                ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
                ("server_name shardd.example", "server_name 127.0.0.1"),
                ("/etc/ssl/shardd.example.pem", pem),
                ("/etc/ssl/shardd.example.key", pem),
                ("proxy_buffering off;", f"proxy_buffering off;\n{more}"),
            ):
                assert old in lines
                lines = lines.replace(old, new)
            config = self.folder / "nginx.conf"
            user = "user root;" if os.geteuid() == 0 else ""  # else its processes could not read the test's files
            config.write_text(NGINX.format(folder=self.folder, server=lines, user=user))
            return [program("nginx", "nginx"), "-e", "stderr", "-p", str(self.folder), "-c", str(config)]
        # A certificate of its own, so that it asks nobody for one.
        lines = lines.replace("shardd.example {", f"{self.origin} {{\n    tls {pem} {pem}")
        assert f"reverse_proxy {behind}" in lines
        lines = lines.replace(f"reverse_proxy {behind}", f"reverse_proxy {behind} {{\n{more}\n}}")
        config = self.folder / "Caddyfile"
        config.write_text("{\n    admin off\n    auto_https disable_redirects\n}\n" + lines)
        return [program("caddy", "caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]

    @asynccontextmanager
    async def running(self, behind: str, more: str = "") -> AsyncIterator[None]:
        """While it accepts connections."""
        with (self.folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command(behind, more),
                stdout=log,
                stderr=log,
                env={"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)},
            )
        try:
            async with asyncio.timeout(PATIENCE):
                while not await self._accepts():
                    assert process.returncode is None, (self.folder / "log").read_text()
                    await asyncio.sleep(LOOK_AGAIN)
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    @asynccontextmanager
    async def visitor(self, address: str) -> AsyncIterator[Visitor]:
        """Somebody at an address of this host."""
        context = ssl.create_default_context(cafile=self.folder / "server.pem")
        connector = aiohttp.TCPConnector(local_addr=(address, 0), ssl=context)
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
            yield Visitor(session, self.origin)


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Proxy:
    """Not running."""
    folder = tmp_path / "proxy"
    folder.mkdir()
    return Proxy(request.param, folder, free_port())


@pytest.fixture
async def daemon(proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Daemon:
    """Its dashboard expects the proxy."""
    dashboard = {
        "listen": f"127.0.0.1:{free_port()}",
        "origin": proxy.origin,
        "trusted_proxies": "127.0.0.1",
        "users": USERS,
    }
    daemon = make_daemon(dashboard=dashboard)
    await daemon.start()
    return daemon


def behind(daemon: Daemon) -> str:
    return str(daemon.settings["dashboard"]["listen"])


async def test_a_person_signs_in_looks_and_acts(
    proxy: Proxy, daemon: Daemon, producer: Producer, browser: Browser
) -> None:
    async with proxy.running(behind(daemon)):
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"{proxy.origin}/")
        await page.get_by_label("Name").fill("ada")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator(".tiles")).to_contain_text("0 of 0")
        assert all(cookie["secure"] and cookie["httpOnly"] for cookie in await context.cookies())
        producer.add_devices(3)  # shown at once: the proxy does not hold the page's events back
        await expect(page.locator(".tiles")).to_contain_text("3 of 3")
        await page.goto(f"{proxy.origin}/devices/d1")
        await page.get_by_role("button", name="Pause").click()
        await is_said(page, "paused device d1")
        await context.close()
    assert producer.execute("SELECT who, act, result FROM shardd.acts ORDER BY id") == [
        ("ada", "sign in", "done"),
        ("ada", "pause", "done"),
    ]


async def test_an_act_is_recorded_from_where_it_came(proxy: Proxy, daemon: Daemon, producer: Producer) -> None:
    async with proxy.running(behind(daemon)), proxy.visitor("127.0.0.5") as eve:
        answer = await eve.try_password(
            "ada", "wrong", **{"X-Forwarded-For": "192.0.2.6", "Forwarded": "for=192.0.2.6"}
        )
        assert answer.status == 401
        # nginx passes on what has another name, and shardd refuses it; Caddy answers it with nothing.
        assert "Sign in" in await (await eve.get("/")).text()
        assert "Sign in" not in await (await eve.get("/", Host="elsewhere.example")).text()
    assert producer.execute("SELECT who, address, act, result FROM shardd.acts ORDER BY id") == [
        ("ada", "127.0.0.5", "sign in", "wrong password")
    ]


async def test_a_proxy_says_who_it_is_and_nobody_else_does(
    proxy: Proxy, daemon: Daemon, producer: Producer, tmp_path: Path
) -> None:
    password = "in-the-proxy"
    if proxy.name == "nginx":
        file = proxy.folder / "passwords"
        file.write_text(f"carl:{{PLAIN}}{password}\n")
        more = f"auth_basic shardd; auth_basic_user_file {file}; proxy_set_header X-Remote-User $remote_user;"
    else:
        command = [program("caddy", "caddy"), "hash-password", "--plaintext", password]
        made = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: ASYNC221  # a moment
        more = f"header_up X-Remote-User {{http.auth.user.id}}\n}}\nbasicauth {{\ncarl {made.stdout.strip()}"
    daemon.settings["dashboard"] |= {"trusted_header": "X-Remote-User", "trusted_role": "look"}
    daemon.write_config()
    await ask(daemon.socket, "POST", "/reload")
    async with proxy.running(behind(daemon), more), proxy.visitor("127.0.0.5") as carl:
        assert (await carl.get("/account", **{"X-Remote-User": "ada"})).status == 401
        known = {
            "Authorization": "Basic " + base64.b64encode(f"carl:{password}".encode()).decode(),
            "X-Remote-User": "ada",
        }
        shown = await (await carl.get("/account", **known)).text()
        assert "carl" in shown
        assert "ada" not in shown
        assert (await carl.get("/audit", **known)).status == 403

        # Another spelling of a user's name is no other person with another role.
        daemon.settings["dashboard"] |= {"trusted_role": "operate", "users": {"Carl": {"role": "look"}}}
        daemon.write_config()
        await ask(daemon.socket, "POST", "/reload")
        refused = await carl.get("/account", **known)
        assert refused.status == 403
        assert "dashboard.users has Carl" in await refused.text()
    rows = producer.execute("SELECT DISTINCT who, how, address FROM shardd.acts WHERE result = 'done'")
    assert rows == [("carl", "proxy", "127.0.0.5")]
