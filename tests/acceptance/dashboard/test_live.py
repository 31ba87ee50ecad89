"""Pages that change as it happens, in a real browser: workers, campaigns, events, and what breaks off meanwhile."""

from __future__ import annotations

import os
import re
import signal

from playwright.async_api import Browser, Page, expect

from shardd.dashboard.live import MOST_OF_ONE
from tests.acceptance.dashboard.looks import StartDaemon, is_said, press
from tests.fixtures.browser import sign_in
from tests.fixtures.postgres import Cluster
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer, wait_gone

PATIENCE = 60_000
"""Milliseconds for what takes more than a look of the page at its sources."""
HIDE = """() => {
  Object.defineProperty(document, "hidden", { value: true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
LISTENERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%%/dashboard' AND query LIKE 'LISTEN%%'"
"""Connections of the dashboard that listen: it has one while somebody watches."""


async def test_a_killed_worker_shows_and_comes_back_without_a_reload(start_daemon: StartDaemon, page: Page) -> None:
    daemon = await start_daemon(shards=1)
    await sign_in(page, daemon)
    row = page.get_by_role("region", name="Shards of this node").get_by_role("row").nth(1)
    restarts = row.get_by_role("cell").nth(1)
    await expect(row).to_contain_text("running")
    await expect(restarts).to_have_text("0")
    (pid,) = daemon.worker_pids()
    os.kill(pid, signal.SIGKILL)
    await expect(restarts).to_have_text("1")
    await expect(row).to_contain_text("running", timeout=PATIENCE)
    await expect(row).to_contain_text(re.compile("last exit: SIGKILL, .* ago"))


async def test_the_worker_of_a_shard_is_replaced(start_daemon: StartDaemon, producer: Producer, page: Page) -> None:
    daemon = await start_daemon(shards=2)
    await sign_in(page, daemon)
    first, second = [shard["pid"] for shard in (await daemon.status())["shards"]]
    await page.get_by_role("combobox").select_option("1")
    await press(page, "Restart")
    await is_said(page, "shard 1 has a new worker")
    after = [shard["pid"] for shard in (await daemon.status())["shards"]]
    assert after[0] == first
    assert after[1] != second
    done = producer.execute("SELECT act, target, result FROM shardd.acts WHERE act <> 'sign in' ORDER BY id")
    assert done == [("restart", "shard 1", "begun"), ("restart", "shard 1", "done")]


async def test_the_last_hour_grows_as_messages_are_sent(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(1)
    producer.add_jobs(3, 1)
    await producer.until_finished(daemon, 3)
    await sign_in(page, daemon)
    hour = page.get_by_role("region", name="The last hour")
    await expect(hour).to_contain_text("3 sent.")
    producer.add_jobs(4, 1)
    await expect(hour).to_contain_text("7 sent.")
    await hour.get_by_text("Numbers by minute").click()
    await expect(hour.get_by_role("row")).not_to_have_count(0)


async def test_the_progress_of_a_campaign_moves(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(2)
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    insert = (
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign)"
        " SELECT 'd' || 1 + g %% 2, '+49151' || %s + g, 'x', 'spring' FROM generate_series(1, %s) g"
    )
    producer.execute(insert, 1_000_000, 4)
    await producer.until_finished(daemon, 4)
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/campaigns?state=running")
    row = page.get_by_role("row", name="spring")
    await expect(row).to_contain_text("4 sent")
    producer.execute(insert, 2_000_000, 6)
    await expect(row).to_contain_text("10 sent", timeout=PATIENCE)
    await row.get_by_role("link", name="spring").click()
    await expect(page.locator("main")).to_contain_text("100 % of 10 jobs ended")
    await expect(page.get_by_role("heading", level=1)).to_have_text("spring finished")
    shardd = Command(daemon.config_file)
    assert [one["shown_state"] for one in (await shardd("campaign", "list", "--json")).json] == ["finished"]
    assert (await shardd("campaign", "show", "spring", "--json")).json["shown_state"] == "finished"
    await expect(page.locator("main")).not_to_contain_text("a minute")
    await expect(page.get_by_role("region", name="Devices").get_by_role("row")).to_have_count(3)


async def test_an_event_appears_as_it_happens_and_only_where_it_is_wanted(
    daemon: Daemon, producer: Producer, page: Page, browser: Browser
) -> None:
    producer.add_devices(2)
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/events?kind=job.*&device=d1")
    await expect(page.locator("#events")).to_contain_text("no such events")
    others = await page.context.new_page()
    await others.goto(f"{site}/events")
    await expect(others.locator("#events")).to_contain_text("device.state")
    for device in ("d2", "d1"):
        producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, '+4915112345678', 'x')", device
        )
        await producer.until_finished(daemon, 1 if device == "d2" else 2)
    await expect(page.locator("#events").get_by_role("row")).to_have_count(1)
    await expect(page.locator("#events")).to_contain_text("job.sent")
    await expect(others.get_by_role("row", name="job.sent")).to_have_count(2)


async def test_a_stopped_database_shows_in_words_and_the_page_recovers(
    daemon: Daemon, producer: Producer, page: Page, cluster: Cluster
) -> None:
    site = await sign_in(page, daemon)
    connection = page.locator("#connection")
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")
    await cluster.stop()
    try:
        await expect(connection).to_contain_text("The database does not answer", timeout=PATIENCE)
        other = await page.context.new_page()
        await other.goto(f"{site}/campaigns")
        await expect(other.locator("main")).to_contain_text("The database does not answer")
        overview = await other.goto(f"{site}/")
        assert overview is not None
        assert overview.status == 200, "the rest of the overview comes from elsewhere"
    finally:
        await cluster.start()
    await expect(connection).to_be_empty(timeout=PATIENCE)
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy", timeout=PATIENCE)
    producer.add_devices(3)
    await expect(page.locator(".tiles")).to_contain_text("3 of 3", timeout=PATIENCE)


async def test_a_lost_connection_is_said_and_made_again(daemon: Daemon, producer: Producer, page: Page) -> None:
    await sign_in(page, daemon)
    await expect(page.locator(".tiles")).to_contain_text("0 of 0")
    (pid,) = daemon.dashboard_pids()
    os.kill(pid, signal.SIGSTOP)
    await page.context.set_offline(True)
    os.kill(pid, signal.SIGCONT)
    await page.context.set_offline(False)
    producer.add_devices(2)
    await expect(page.locator(".tiles")).to_contain_text("2 of 2", timeout=PATIENCE)


async def test_a_stream_ends_with_its_sign_in(daemon: Daemon, page: Page) -> None:
    site = await sign_in(page, daemon)
    other = await page.context.new_page()
    await other.goto(f"{site}/events")
    await other.get_by_role("button", name="Sign out").click()
    await expect(other.get_by_role("heading", level=1)).to_have_text("Sign in")
    await expect(page.locator("#connection")).to_contain_text("You are signed out")


async def test_nothing_runs_while_nobody_sees_a_page(daemon: Daemon, producer: Producer, page: Page) -> None:
    await sign_in(page, daemon)
    await expect(page.locator(".tiles")).to_contain_text("0 of 0")
    listening = producer.execute(LISTENERS)
    assert listening == [(1,)]
    await page.evaluate(HIDE)
    while producer.execute(LISTENERS) != [(0,)]:
        await daemon.wait_change()
    producer.add_devices(2)
    await page.evaluate(HIDE.replace("true, conf", "false, conf"))
    await expect(page.locator(".tiles")).to_contain_text("2 of 2")


async def test_a_browser_with_many_pages_works_and_the_older_ones_say_that_they_wait(
    producer: Producer, page: Page, site: str
) -> None:
    # Of this browser, all are visible at once, as if each had a window of its own.
    pages = [page]
    for _ in range(11):
        pages.append(await page.context.new_page())
        await pages[-1].goto(site)
        await expect(pages[-1].locator(".tiles")).to_contain_text("0 of 0")
    for older in pages[:-MOST_OF_ONE]:
        await expect(older.locator("#connection")).to_contain_text("too many others are open")
    producer.add_devices(2)
    for newer in pages[-MOST_OF_ONE:]:
        await expect(newer.locator(".tiles")).to_contain_text("2 of 2")
        await expect(newer.locator("#connection")).to_be_empty()
    await expect(page.locator(".tiles")).to_contain_text("0 of 0")
    await page.get_by_role("heading", level=1).click()
    await expect(page.locator(".tiles")).to_contain_text("2 of 2")
    await expect(page.locator("#connection")).to_be_empty()
    await expect(pages[-MOST_OF_ONE].locator("#connection")).to_contain_text("too many others are open")


async def test_an_open_page_does_not_keep_the_daemon_from_stopping(daemon: Daemon, page: Page) -> None:
    await sign_in(page, daemon)
    await expect(page.locator(".tiles")).to_contain_text("0 of 0")
    (pid,) = daemon.dashboard_pids()
    assert await daemon.stop() == 0
    await wait_gone(pid)
    assert not re.search(r'"level":"(error|critical)"', daemon.log_tail(1000))
    await expect(page.locator("#connection")).to_contain_text("The connection to shardd is lost")
    await expect(page.locator("main")).to_have_css("filter", "grayscale(1)")
