"""An operator looks at the dashboard of a real daemon with a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import signal

from playwright.async_api import Page, expect

from tests.acceptance.dashboard.looks import is_fit_for_all, waiting
from tests.fixtures.browser import sign_in
from tests.support.daemon import Daemon, Producer, wait_gone
from tests.support.visitor import make_link, visitor


async def test_what_happens_shows_without_a_reload(daemon: Daemon, producer: Producer, page: Page) -> None:
    await sign_in(page, daemon)
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")
    await expect(page.locator(".tiles")).to_contain_text("0 of 0")
    producer.add_devices(3)
    await expect(page.locator(".tiles")).to_contain_text("3 of 3")
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd1'")
    await page.get_by_role("link", name="paused 1").click()
    await expect(page.get_by_role("row", name="d1 paused")).to_be_visible()


async def test_the_first_page_says_why_jobs_wait_and_that_sandbox_devices_reach_nobody(
    daemon: Daemon, producer: Producer, page: Page
) -> None:
    producer.execute("INSERT INTO shardd.devices (id, transport, state) VALUES ('d1', 'sandbox', 'logged_out')")
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d2', 'sandbox', now())")
    waiting(producer, 3)
    waiting(producer, 1, device_id="d2")
    await sign_in(page, daemon)
    await expect(page.locator("main")).to_contain_text("2 of 2 devices are sandbox: their messages reach nobody.")
    waits = page.get_by_role("region", name="Queued jobs by what they wait for")
    await expect(waits.get_by_role("row", name="its device: logged out")).to_contain_text("3")
    await expect(waits.get_by_role("row", name="its device: paused")).to_contain_text("1")
    await expect(waits.get_by_role("link", name="link phones")).to_be_visible()
    await is_fit_for_all(page)
    await waits.get_by_role("link", name="1 job: its device: paused").click()
    await expect(page.get_by_role("row", name="d2 +4915112345678")).to_contain_text("its device: paused")
    await expect(page.get_by_role("row", name="+4915112345678")).to_have_count(1)
    await expect(page.get_by_label("Waits for")).to_have_value("its device: paused")
    await expect(page.locator("main")).to_contain_text("There is no act on all jobs that match Waits for: open a job")
    await page.go_back()
    await waits.get_by_role("row", name="its device: paused").get_by_role("link", name="devices").click()
    await expect(page.get_by_role("row", name="d2 paused")).to_be_visible()
    await page.get_by_role("link", name="d2", exact=True).click()
    await expect(page.locator("main")).to_contain_text("sandbox: its messages reach nobody")


async def test_a_job_is_found_from_its_device(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(1)
    producer.add_jobs(1, 1)
    await producer.until_finished(daemon, 1)
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/devices/d1")
    await page.get_by_role("row", name=re.compile("sent")).get_by_role("link").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Job \d+ sent"))


async def test_a_killed_process_is_replaced_and_its_browsers_sign_in_again(
    daemon: Daemon, producer: Producer, page: Page
) -> None:
    site = await sign_in(page, daemon)
    (pid,) = daemon.dashboard_pids()
    os.kill(pid, signal.SIGKILL)
    await wait_gone(pid)
    await page.goto(f"{site}/devices")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert daemon.dashboard_pids() != [pid]
    await sign_in(page, daemon)
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")


async def test_a_supervisor_that_hangs_is_said_in_words_and_the_rest_is_shown(
    daemon: Daemon, producer: Producer, page: Page, site: str
) -> None:
    producer.add_devices(1)
    words = f"The supervisor does not answer: shardd at {daemon.socket} did not answer within 5 s"
    async with visitor(daemon) as operator, visitor(daemon) as late:
        await operator.sign_in_by_link(daemon)
        link = await make_link(daemon)
        daemon.kill(signal.SIGSTOP)
        try:
            # All at once: each waits for as long as a page is willing to.
            shown, closed, redeemed, device = await asyncio.gather(
                page.goto(f"{site}/opt-outs?number=%2B4915112345678"),
                operator.request("POST", "/devices/d1/close"),
                late.request("POST", link),
                operator.get("/devices/d1"),
            )
            assert shown is not None
            assert [one.status for one in (shown, closed, redeemed, device)] == [503, 503, 503, 200]
            overview = await operator.get("/")  # by now, the last status is not shown any more
            for one in (shown, closed, redeemed, overview):
                assert words in await one.text()
            assert "sandbox" in await device.text()
            await is_fit_for_all(page)
        finally:
            daemon.kill(signal.SIGCONT)
        await page.goto(site)
        await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")
    failed = producer.execute("SELECT act, target, result FROM shardd.acts WHERE result <> 'done'")
    assert failed == [("close client", "device d1", words)]


async def test_no_process_runs_before_anybody_looks_and_none_after_the_daemon(daemon: Daemon, page: Page) -> None:
    assert daemon.dashboard_pids() == []
    await sign_in(page, daemon)
    (pid,) = daemon.dashboard_pids()
    daemon.kill()
    await wait_gone(pid)
