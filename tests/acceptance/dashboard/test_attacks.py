"""Attacks on the dashboard of a real daemon: by other sites' pages, by those who may only look, and by strangers who guess."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, expect
from yarl import URL

from shardd.control_client import ask
from shardd.dashboard import throttle
from shardd.dashboard.site import HEADERS
from shardd.queue.acts import LOST_AFTER, NAMED_FOR, UNFINISHED
from tests.acceptance.dashboard.looks import EVER, StartDaemon, waiting
from tests.fixtures.browser import free_port, sign_in
from tests.support.api import Program, make_token, site_of
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.dashboard_routes import dashboard_routes
from tests.support.queue_rows import connect
from tests.support.visitor import PASSWORD, USERS, make_link, visitor

Routes = list[tuple[str, str]]
"""Method and path of each."""
FOR_ALL: Final = {
    *("/sign-in", "/sign-in/{token}"),
    # For owners of phones, by a link that is tested elsewhere.
    *("/pair", "/pair/live", "/pair/begin", "/pair/{secret:.*}"),
}
"""Those answer who is not signed in."""
OWN: Final = {"/sign-out", "/account/sign-out-everywhere"}
"""Acts on one's own sign-ins, which everybody may end."""


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    return await start_daemon(users=USERS)


@pytest.fixture
async def signed_in(daemon: Daemon, browser: Browser) -> tuple[Page, str]:
    """A tab of an operator, which may lead anywhere, and the address of the site."""
    page = await browser.new_page()
    return page, await sign_in(page, daemon)


@pytest.fixture
def routes(daemon: Daemon) -> Routes:
    """Method and path of everything that the dashboard answers."""
    return [(route.method, route.path) for route in dashboard_routes(daemon.config_file)]


def acting(routes: Routes) -> Iterator[tuple[str, str]]:
    for method, path in routes:
        if path.startswith("/api/"):
            continue  # its tokens have tests of their own
        if method == "*":
            yield from ((one, "/nothing") for one in ("POST", "PUT", "PATCH", "DELETE"))
        elif method not in {"GET", "HEAD"}:
            yield method, path


def filled(path: str) -> str:
    """A path that the route matches."""
    return re.sub(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", "1", path)


def acts(producer: Producer) -> list[tuple[Any, ...]]:
    return producer.execute("SELECT act, result FROM shardd.acts ORDER BY id")


@pytest.fixture
async def evil() -> AsyncIterator[Callable[[str], str]]:
    """Serves a page of somebody else's; returns its address on a host."""
    body: list[str] = []

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=body[-1], content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()

    def serve(text: str) -> str:
        body.append(text)
        return f":{port}/"

    yield serve
    await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_page_of_another_origin_makes_a_signed_in_browser_do_nothing(
    signed_in: tuple[Page, str], producer: Producer, evil: Callable[[str], str], host: str, routes: Routes
) -> None:
    page, site = signed_in
    posts = [f"{site}{filled(path)}" for _, path in acting(routes)]
    script = (
        "Promise.allSettled("
        f"{posts!r}.map((url) => fetch(url, {{method: 'POST', mode: 'no-cors', credentials: 'include', body: 'a=b'}}))"
        ").then(() => document.forms[0].submit())"
    )
    text = f"<form method=post action='{site}/sign-out'><input name=a></form><script>{script}</script>"
    async with page.expect_navigation(url=f"{site}/sign-out"):
        await page.goto(f"http://{host}{evil(text)}")
    refused = [result for act, result in acts(producer) if act != "sign in"]
    # Another port of the same host is the same site: to that, cookies with SameSite=Strict are sent.
    assert bool(refused) is (host == "127.0.0.1")
    assert set(refused) <= {"This request does not come from a page of this sign-in. Reload the page."}
    await page.goto(f"{site}/account")
    await expect(page.get_by_role("button", name="Sign out everywhere")).to_be_visible()


async def test_a_page_of_another_origin_signs_nobody_in(
    daemon: Daemon, producer: Producer, page: Page, evil: Callable[[str], str]
) -> None:
    site = f"http://{daemon.settings['dashboard']['listen']}"
    text = (
        f"<form method=post action='{site}/sign-in'><input name=name value=bob><input name=password value='{PASSWORD}'></form>"
        "<script>document.forms[0].submit()</script>"
    )
    async with page.expect_navigation(url=f"{site}/sign-in"):
        await page.goto(f"http://127.0.0.1{evil(text)}")
    await expect(page.get_by_role("main")).to_contain_text("does not come from this page")
    assert await page.context.cookies() == []
    assert acts(producer) == []


async def test_an_act_needs_the_token_of_the_page_and_its_origin(daemon: Daemon, producer: Producer) -> None:
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        for headers in (
            {"X-Shardd-Token": ""},
            {"X-Shardd-Token": ada.cookie},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
        ):
            assert (await ada.request("POST", "/sign-out", headers=headers)).status == 403, headers
        assert (await ada.get("/account")).status == 200
        assert (await ada.request("POST", "/sign-out")).status == 200
        assert (await ada.get("/account")).status == 401


async def test_who_may_look_can_do_nothing(daemon: Daemon, producer: Producer, routes: Routes) -> None:
    async with visitor(daemon) as bob, visitor(daemon) as nobody:
        await bob.sign_in("bob")
        before = len(acts(producer))
        refused = 0
        for method, path in acting(routes):
            if path in FOR_ALL | OWN:
                continue
            answer = await bob.request(method, filled(path))
            assert answer.status == 403, (method, path)
            assert "bob may look, but not operate." in await answer.text(), (method, path)
            assert (await nobody.request(method, filled(path))).status == 401, (method, path)
            refused += 1
        assert (await bob.get("/audit")).status == 403
        assert [result for _, result in acts(producer)[before:]] == ["bob may look, but not operate."] * refused


async def test_an_act_on_all_jobs_refuses_filters_that_it_does_not_know(daemon: Daemon, producer: Producer) -> None:
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d1', 'sandbox', now())")
    waiting(producer, 2)
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        for query, words in (
            ("state=queued&recipient=%2B4915112345678", "recipient is unknown here"),
            ("state=queued&campain=spring", "campain is unknown here"),
            ("state=queued&device=d1&device=d2", "device is given twice"),
            ("state=queued&snapshot=today", "snapshot is &#39;today&#39;: load the page again"),
            ("state=queued&snapshot=5:4:", "snapshot is &#39;5:4:&#39;: load the page again"),
            ("state=queued", "snapshot is missing: look at the jobs that are meant"),
        ):
            ever = "" if "snapshot" in words else f"&{EVER}"
            answer = await ada.request("POST", f"/jobs/all/cancel?{query}{ever}")
            assert answer.status == 400, query
            assert words in await answer.text()
        assert producer.states() == {"queued": 2}
        assert {act for act, result in acts(producer) if result != "done"} == {"cancel"}
        number = "+49 151 notanumber 4711081512"
        answer = await ada.request("POST", "/opt-outs", data={"number": number})
        assert answer.status == 400
        assert "is not a phone number" in await answer.text()
    assert acts(producer)[-1] == ("opt out", "the number cannot be read")
    assert "4711081512" not in repr(producer.execute("SELECT * FROM shardd.acts")) + daemon.log_file.read_text()


async def test_an_act_on_all_jobs_that_ends_in_the_middle_is_in_the_audit_log(
    daemon: Daemon, producer: Producer, dsn: str
) -> None:
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d1', 'sandbox', now())")
    waiting(producer, 2)

    def cancels() -> list[tuple[Any, ...]]:
        return producer.execute("SELECT detail, result FROM shardd.acts WHERE act = 'cancel' ORDER BY id")

    begun = ("state queued", "begun")
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        with connect(dsn) as owner, owner.transaction():
            owner.execute("LOCK TABLE shardd.jobs IN SHARE MODE")  # which can be counted, and not cancelled
            assert (await ada.request("POST", f"/jobs/all/cancel?state=queued&{EVER}")).status == 503
            first, (detail, result) = cancels()
            assert (first, detail) == (begun, "state queued")
            assert result.endswith("; handled before: 0 jobs")
            dies = asyncio.create_task(ada.request("POST", f"/jobs/all/cancel?state=queued&{EVER}"))
            while len(cancels()) < 3:
                await daemon.wait_change()
            (pid,) = daemon.dashboard_pids()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await dies
    assert cancels()[2:] == [begun]
    assert producer.states() == {"queued": 2}
    producer.execute("UPDATE shardd.acts_under_way SET seen_at = seen_at - %s * interval '1s'", LOST_AFTER + 1)
    async with visitor(daemon) as ada, visitor(daemon) as bob:
        await ada.sign_in("ada")
        await bob.sign_in("bob")
        assert (await (await ada.get("/audit")).text()).count(UNFINISHED) == 1
        told = "cancel, jobs: begun by ada (password) at "
        overview = await (await ada.get("/")).text()
        assert (told in overview, '<a href="/jobs">what it was about</a>' in overview) == (True, True)
        assert told not in await (await bob.get("/")).text()
        for one, sees in ((ada, True), (bob, False)):
            async with one.session.get(f"{one.site}/live?topic=overview-acts&topic=overview-tiles") as stream:
                sent, last = b"", told.encode() if sees else b"event: overview-tiles"
                while last not in sent:
                    sent += await stream.content.readline()
            assert (b"overview-acts" in sent) is sees
        producer.execute("UPDATE shardd.acts_under_way SET seen_at = seen_at - %s * interval '1s'", NAMED_FOR)
        assert told not in await (await ada.get("/")).text()


async def test_only_pages_for_signing_in_are_shown_to_strangers(daemon: Daemon, routes: Routes) -> None:
    async with visitor(daemon) as nobody:
        for method, path in routes:
            if method in {"GET", "*"} and not path.startswith(("/static/", "/api/")) and path not in FOR_ALL:
                assert (await nobody.get(filled(path))).status == 401, path


async def test_every_answer_has_the_headers(daemon: Daemon, routes: Routes) -> None:
    expected = {name: value for name, value in HEADERS.items() if name != "Cache-Control"}
    async with visitor(daemon) as ada, visitor(daemon) as nobody:
        await ada.sign_in("ada")
        for method, path in routes:
            for one in (ada, nobody):
                if path == "/live":  # endless
                    continue
                answer = await one.request("GET" if method == "*" else method, filled(path), headers={"Origin": "null"})
                assert expected.items() <= answer.headers.items(), (method, path, answer.status)
        for answer in (
            await ada.get("/", Host="evil.example"),
            await ada.request("POST", "/sign-in", data=b"x" * (2 << 20)),
            await ada.request("POST", "/jobs"),
            await ada.request("QUERY", "/jobs"),
            await ada.get("/audit?before=x"),
            await ada.get("/static/nothing.js"),
            await ada.get("/%0d%0aX:1"),
            await nobody.get("/%0a"),
        ):
            assert expected.items() <= answer.headers.items(), answer
            assert answer.content_type == "text/html", answer
        program = await nobody.get("/api/%0d%0aX:1")
        assert expected.items() <= program.headers.items(), program
        assert (program.status, program.content_type) == (401, "application/problem+json")


async def test_a_sign_in_has_a_cookie_that_nobody_knew_before(daemon: Daemon) -> None:
    async with visitor(daemon) as ada, visitor(daemon) as thief:
        port = daemon.settings["dashboard"]["listen"].rpartition(":")[2]
        ada.session.cookie_jar.update_cookies({f"shardd-{port}": "planted"}, URL(ada.site))
        await ada.sign_in("ada")
        first = ada.cookie
        assert first != "planted"
        await ada.sign_in("bob")
        second = ada.cookie
        for cookie in ("planted", first):
            assert (await thief.get("/", Cookie=f"shardd-{port}={cookie}")).status == 401
        assert (await thief.get("/", Cookie=f"shardd-{port}={second}")).status == 200
        await ada.request("POST", "/sign-out")
        assert (await thief.get("/", Cookie=f"shardd-{port}={second}")).status == 401


async def test_a_link_signs_in_once_and_only_from_its_own_page(daemon: Daemon, producer: Producer) -> None:
    link = await make_link(daemon)
    async with visitor(daemon) as owner, visitor(daemon) as thief:
        for headers in ({"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "same-site"}):
            foreign = await thief.request("POST", link, headers=headers)
            assert (foreign.status, "does not come from this page" in await foreign.text()) == (403, True), headers
        assert (await thief.get(link)).status == 200  # who only looks does not use it up
        assert (await owner.request("POST", link)).status == 303
        again = await thief.request("POST", link)
        assert (again.status, "This link was used already" in await again.text()) == (403, True)
        looked = await thief.get(link)  # and it says so before anybody presses a button
        assert (looked.status, "This link was used already" in await looked.text()) == (410, True)
        assert (len(thief.session.cookie_jar), (await thief.get("/account")).status) == (0, 401)
        daemon.kill(signal.SIGSTOP)  # whoever invents links keeps only the dashboard busy
        try:
            invented = [f"/sign-in/{letter * 43}" for letter in "abc"]
            assert [(await thief.get(one)).status for one in invented] == [404] * 3
            assert [(await thief.request("POST", one)).status for one in invented] == [403] * 3
        finally:
            daemon.kill(signal.SIGCONT)
    why = "the link was used already, or is too old"
    assert acts(producer) == [("sign in", "done"), *[("sign in", why)] * 4]


async def test_a_name_that_another_site_points_here_shows_nothing(daemon: Daemon) -> None:
    port = daemon.settings["dashboard"]["listen"].rpartition(":")[2]
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a@127.0.0.1",
        ):
            assert (await ada.get("/account", Host=host)).status == 421, host
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "[::1]:9"):
            assert (await ada.get("/sign-in", Host=host)).status == 200, host


async def test_signing_in_leads_to_our_pages_only(daemon: Daemon) -> None:
    async with visitor(daemon) as ada:
        for to in (
            "//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/a\r\nX-Evil: 1", "\t//evil",
            "/" + "a" * 5000, "",
        ):  # fmt: skip
            answer = await ada.try_password("ada", PASSWORD, to=to)
            assert (answer.status, answer.headers["Location"], "X-Evil" in answer.headers) == (303, "/", False), to
        answer = await ada.try_password("ada", PASSWORD, to="/jobs?state=in_doubt")
        assert answer.headers["Location"] == "/jobs?state=in_doubt"


async def test_guessing_is_slowed_and_locks_nobody_else_out(daemon: Daemon, producer: Producer) -> None:
    async with visitor(daemon) as stranger, visitor(daemon, "127.0.0.2") as ada:
        tries = [
            stranger.try_password("ada", f"guess {number}", **{"X-Forwarded-For": f"192.0.2.{number}"})
            for number in range(100)
        ]
        statuses = Counter(answer.status for answer in await asyncio.gather(*tries))
        assert statuses == {401: throttle.FREE, 429: 100 - throttle.FREE}
        refused = await stranger.try_password("ada", PASSWORD)
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "Too many failed attempts. Try again in" in await refused.text()
        await ada.sign_in("ada")
        await stranger.sign_in_by_link(daemon)
    assert Counter(acts(producer)) == {("sign in", "wrong password"): throttle.FREE, ("sign in", "done"): 2}


async def test_who_is_removed_while_an_act_arrives_does_nothing(daemon: Daemon, producer: Producer) -> None:
    producer.add_devices(1)
    program = Program(site_of(daemon), await make_token(daemon, "deploy", "operate"))
    released = asyncio.Event()

    async def slowly(body: bytes) -> AsyncIterator[bytes]:
        yield body[:4]
        await released.wait()
        yield body[4:]

    async with visitor(daemon) as ada, visitor(daemon) as bob, program:
        await ada.sign_in("ada")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        page = asyncio.create_task(ada.request("POST", "/devices/d1/pause", data=slowly(b"why=away"), headers=form))
        token = asyncio.create_task(
            program.ask(
                "POST",
                "/api/v1/devices/d1/pause",
                headers={"Content-Type": "application/json"},
                data=slowly(b'{"why": "away"}'),
            )
        )
        while producer.execute("SELECT used_at FROM shardd.api_tokens") == [(None,)]:
            await bob.get("/sign-in")  # until the token was looked up
        await Command(daemon.config_file)("token", "remove", "deploy")
        daemon.settings["dashboard"]["users"] = {"bob": USERS["bob"], "eve": dict(USERS["bob"])}
        daemon.write_config()
        await ask(daemon.socket, "POST", "/reload")
        # A line to the process, and a request: which comes first is not certain.
        while (await bob.try_password("eve", PASSWORD)).status != 303:
            pass
        released.set()
        assert ((await page).status, (await token).status) == (401, 401)
    assert producer.execute("SELECT paused_at FROM shardd.devices") == [(None,)]


async def test_who_came_while_too_many_tried_may_try_again_at_once(daemon: Daemon) -> None:
    async with AsyncExitStack() as stack, visitor(daemon) as ada:
        others = [await stack.enter_async_context(visitor(daemon, f"127.0.1.{number}")) for number in range(1, 41)]
        guesses = [asyncio.create_task(other.try_password("ada", "guess")) for other in others]
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        statuses = [(await ada.try_password("ada", PASSWORD)).status for _ in range(throttle.FREE + 2)]
        assert set(statuses) <= {503, 303}
        await asyncio.wait(guesses)
        await ada.sign_in("ada")


async def test_a_flood_of_wrong_passwords_keeps_no_other_user_out(daemon: Daemon) -> None:
    crowded, over = asyncio.Event(), asyncio.Event()

    async def flood(address: str, names: list[str]) -> None:
        async with visitor(daemon, address) as stranger:
            while not over.is_set():
                answers = await asyncio.gather(*(stranger.try_password(name, "guess") for name in names))
                if any(answer.status == 503 for answer in answers):
                    crowded.set()

    async with visitor(daemon, "127.0.2.1") as ada, visitor(daemon, "127.0.2.2") as bob:
        await ada.sign_in("ada")
        floods = [flood(f"127.0.1.{number}", ["ada"]) for number in range(1, 101)]
        floods += [flood("127.0.3.1", ["ada", *(f"nobody-{number}" for number in range(20))])]
        tasks = [asyncio.create_task(one) for one in floods]
        await crowded.wait()
        await bob.sign_in("bob")
        await ada.sign_in("ada")  # from where she has signed in before, also with the name at which they guess
        over.set()
        await asyncio.gather(*tasks)


async def test_an_unknown_name_is_told_as_a_wrong_password(daemon: Daemon, producer: Producer) -> None:
    async with visitor(daemon) as stranger:
        pages = [
            (await (await stranger.try_password(name, "guess")).text()).replace(f'value="{name}"', "")
            for name in ("ada", "eve")
        ]
        assert pages[0] == pages[1]
        assert "The name or the password is wrong." in pages[0]
        await stranger.try_password("a secret that was typed into the wrong field", "guess")
    assert producer.execute("SELECT who, result FROM shardd.acts ORDER BY id") == [
        ("ada", "wrong password"), ("", "there is no such user"), ("", "there is no such user"),
    ]  # fmt: skip
