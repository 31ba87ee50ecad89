"""Who may use the dashboard, what they may do, and how their acts are recorded: a real daemon and a real browser."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from playwright.async_api import Page, expect

from shardd.control_client import ask
from shardd.dashboard.audit import RATION
from tests.acceptance.dashboard.looks import StartDaemon, is_fit_for_all
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.visitor import PASSWORD, USERS, make_link, visitor


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    return await start_daemon(users=USERS)


async def reload(daemon: Daemon, **dashboard: Any) -> None:
    """With these options, and no others, but the same address."""
    daemon.settings["dashboard"] = {"listen": daemon.settings["dashboard"]["listen"], **dashboard}
    daemon.write_config()
    await ask(daemon.socket, "POST", "/reload")


async def test_a_user_signs_in_with_a_password_and_out_everywhere(daemon: Daemon, page: Page) -> None:
    site = f"http://{daemon.settings['dashboard']['listen']}"
    await page.goto(f"{site}/devices?state=ready")
    await page.get_by_label("Name").fill("ada")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("main").get_by_role("alert")).to_have_text("The name or the password is wrong.")
    await page.goto(f"{site}/devices?state=ready")
    await page.get_by_label("Name").fill("ada")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Devices")
    await page.goto(f"{site}/account")
    await page.get_by_role("button", name="Sign out everywhere").click()
    await page.get_by_role("dialog").get_by_role("button", name="Back").click()
    await expect(page.get_by_role("dialog")).not_to_be_visible()
    await page.get_by_role("button", name="Sign out everywhere").click()
    await page.get_by_role("dialog").get_by_role("button", name="Sign out everywhere").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


async def test_the_pages_around_a_sign_in_are_fit_for_all(daemon: Daemon, page: Page) -> None:
    site = f"http://{daemon.settings['dashboard']['listen']}"

    async def look(path: str, heading: str, status: int = 200) -> None:
        answer = await page.goto(site + path)
        assert answer is not None
        assert answer.status == status, path
        await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        await is_fit_for_all(page)

    await look("/devices", "Sign in", 401)
    await page.get_by_label("Name").fill("bob")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("main").get_by_role("alert")).to_be_visible()
    await is_fit_for_all(page)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")
    # A note says what to do, which bob cannot.
    daemon.settings["shards"] = 5
    await reload(daemon, users=USERS)
    await daemon.until(lambda status: bool(status["notes"]))
    notes = page.get_by_role("region", name="Notes")
    await look("/", "test: healthy")
    await expect(notes).to_have_count(0)
    await look("/account", "bob")
    await look("/audit", "Sorry", 403)
    await look("/nothing", "Sorry", 404)
    link = await make_link(daemon)
    await look(link, "Sign in")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")
    await expect(notes).to_contain_text("takes effect with a restart")
    await look("/audit", "Audit")
    await expect(page.get_by_role("row", name="wrong password")).to_be_visible()
    await look("/account", "whoever has the link")


async def test_the_navigation_names_the_page_that_is_shown(page: Page, site: str) -> None:
    main = page.get_by_role("navigation", name="Main")
    names = await main.get_by_role("link").all_inner_texts()
    assert len(names) == 11
    for name in names:
        await main.get_by_role("link", name=name, exact=True).click()
        await expect(main.locator("[aria-current=page]")).to_have_text(name)
    assert page.url.startswith(site)


async def test_without_users_the_page_says_that_it_listens_on_loopback_only(
    start_daemon: StartDaemon, page: Page
) -> None:
    daemon = await start_daemon()
    listen = daemon.settings["dashboard"]["listen"]
    await page.goto(f"http://{listen}/")
    await expect(page.get_by_role("main")).to_contain_text(f"this page listens on {listen} only")
    await expect(page.get_by_label("Password")).to_have_count(0)


async def test_a_reload_decides_at_once_and_ends_the_sign_ins_of_whom_it_changes(daemon: Daemon) -> None:
    async with visitor(daemon) as ada, visitor(daemon) as bob, visitor(daemon) as link, AsyncExitStack() as stack:
        await ada.sign_in("ada")
        await bob.sign_in("bob")
        await link.sign_in_by_link(daemon)
        # Bob signs in once more, and is gone before his password was compared: others are before it.
        others = [await stack.enter_async_context(visitor(daemon, f"127.0.1.{number}")) for number in range(1, 26)]
        guesses = [asyncio.create_task(other.try_password("ada", "guess")) for other in others]
        late = await stack.enter_async_context(visitor(daemon, "127.0.2.1"))
        trying = asyncio.create_task(late.try_password("bob", PASSWORD))
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        await reload(daemon, users={"ada": USERS["ada"], "eve": USERS["bob"]})
        await asyncio.wait(guesses)
        await trying
        assert (await late.get("/account")).status == 401
        async with visitor(daemon) as eve:
            # A line to the process, and a request: which comes first is not certain.
            while (await eve.try_password("eve", PASSWORD)).status != 303:
                pass
        assert [(await one.get("/account")).status for one in (ada, bob, link)] == [200, 401, 200]
        assert (await bob.try_password("bob", PASSWORD)).status == 401


async def test_who_signs_in_and_out_all_day_does_not_fill_the_audit_log(daemon: Daemon, producer: Producer) -> None:
    async with visitor(daemon) as somebody:
        for _ in range(RATION // 2 + 3):
            await somebody.sign_in_by_link(daemon)
            assert (await somebody.request("POST", "/sign-out")).status == 200
    rows = producer.execute("SELECT act, result FROM shardd.acts ORDER BY id")
    assert rows == [("sign in", "done"), ("sign out", "done")] * (RATION // 2)
    assert daemon.log_file.read_text().count('"act":"sign in"') == RATION // 2 + 3


async def test_a_trusted_proxy_says_who_it_is(daemon: Daemon, producer: Producer) -> None:
    await reload(daemon, users=USERS, trusted_header="X-User", trusted_proxies="127.0.0.1", trusted_role="look")
    async with visitor(daemon) as proxy, visitor(daemon, "127.0.0.2") as stranger:
        ada = {"X-User": "ada", "X-Forwarded-For": "192.0.2.7"}
        assert (await proxy.get("/audit", **ada)).status == 200
        assert (await stranger.get("/audit", **ada)).status == 401
        assert (await proxy.get("/account", **{"X-User": "carl"})).status == 200
        assert (await proxy.get("/audit", **{"X-User": "carl"})).status == 403
        # The proxy may send a browser's cookie along; another page cannot have the token.
        assert (await proxy.request("POST", "/sign-out", headers=ada)).status == 403
        await reload(daemon, users=USERS, trusted_header="X-User", trusted_proxies="127.0.0.1")
        while (answer := await proxy.get("/account", **{"X-User": "carl"})).status == 200:
            pass
        assert (answer.status, "who is not in dashboard.users" in await answer.text()) == (403, True)
        await reload(daemon, origin="https://shardd.example")
        url = str((await ask(daemon.socket, "POST", "/dashboard/links"))["url"])
        assert url.startswith("https://shardd.example/sign-in/")
    rows = producer.execute("SELECT who, how, address, act FROM shardd.acts WHERE result = 'done' ORDER BY id")
    assert rows[:2] == [("ada", "proxy", "192.0.2.7", "sign in"), ("carl", "proxy", "127.0.0.1", "sign in")]


async def test_the_audit_log_is_shown_by_page_and_command_and_changed_by_nobody(
    daemon: Daemon, producer: Producer, page: Page
) -> None:
    async with visitor(daemon) as bob:
        await bob.sign_in("bob")
        await bob.request("POST", "/sign-out")
    printed = subprocess.run(  # noqa: ASYNC221  # takes a second
        [sys.executable, "-m", "shardd.cli.main", "dashboard", "acts", "--json", f"--config={daemon.config_file}"],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    assert [(one["who"], one["how"], one["act"], one["result"], one["node"]) for one in json.loads(printed)] == [
        ("bob", "password", "sign out", "done", "test"),
        ("bob", "password", "sign in", "done", "test"),
    ]
    assert '"action":"act"' in daemon.log_file.read_text().replace(": ", ":")
    producer.execute(
        "INSERT INTO shardd.acts (who, how, address, act, node) "
        "SELECT 'x', 'link', '', 'act ' || n, 'test' FROM generate_series(1, 150) n"
    )
    url = str((await ask(daemon.socket, "POST", "/dashboard/links"))["url"])
    await page.goto(url)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="Audit").click()
    await expect(page.get_by_role("row")).to_have_count(101)
    await expect(page.get_by_role("row").nth(1)).to_contain_text("whoever has the link")
    await page.get_by_role("link", name="Older").click()
    await expect(page.get_by_role("row").last).to_contain_text("bob")
    await acts_are_found(daemon, producer, page, url.partition("/sign-in/")[0])
    with psycopg.connect(producer.dsn, autocommit=True) as connection:
        connection.execute("SET ROLE shardd_producer")
        for statement in ("SELECT FROM shardd.acts", "DELETE FROM shardd.acts", "UPDATE shardd.acts SET who = 'y'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


async def acts_are_found(daemon: Daemon, producer: Producer, page: Page, site: str) -> None:
    """By what was done and to what, on the page, which is not cut, and by the command, which is not either."""
    shardd = Command(daemon.config_file)
    for target, detail, who in (
        ("device d1", "", "ada"),
        ("3 devices", "they are hot, and somebody has to look at them; devices d0, d1, d2", "root (sudo: ada)"),
        ("device d11", "", "ada"),
    ):
        producer.execute(
            "INSERT INTO shardd.acts (who, how, address, act, target, detail, node) "
            "VALUES (%s, 'password', '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff', 'pause', %s, %s, 'node-of-berlin')",
            who, target, detail,
        )  # fmt: skip
    await page.goto(f"{site}/audit")
    await is_fit_for_all(page)
    wide = page.get_by_role("region", name="Acts")
    assert await wide.evaluate("one => one.scrollWidth <= one.clientWidth")
    for name, value, rows in (("Target", "d1", 2), ("Act", "pause", 2), ("Target", "", 3), ("Act", "resume", 0)):
        await page.get_by_role("textbox", name=name).fill(value)
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("tbody td.when")).to_have_count(rows)
    await expect(wide).to_contain_text("no such acts")
    await page.goto(f"{site}/audit?target=device+d1&who=ada")
    await expect(page.locator("tbody td.when")).to_have_count(2)

    shardd.environ["COLUMNS"] = "100"
    found = await shardd("dashboard", "acts", "--act=pause", "--target=device d1")
    first, second = [line for line in found.out.splitlines() if "pause" in line]
    assert re.search(
        r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  root \(sudo: ada\)  pause  3 devices  they are hot, and .*…  done", first
    )
    assert re.search(r"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  ada +pause  device d1 .* done$", second.rstrip())
    assert max(len(line) for line in found.out.splitlines()) <= 100
