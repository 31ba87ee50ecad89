"""The dashboard with 3,000 devices and a million jobs: an operator's day in a real browser, and how much each page reads."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from benchlib.dashboard_fill import Sizes, fill
from playwright.async_api import Browser, Page, expect

from tests.acceptance.dashboard.looks import is_said, press
from tests.acceptance.dashboard.test_pairing import scan_screen, status
from tests.fixtures.browser import free_port, sign_in
from tests.fixtures.pairing import Place
from tests.fixtures.postgres import TEMPLATE, Cluster
from tests.support.daemon import PATIENCE

SIZES = Sizes(devices=3000, finished=700_000, live=300_000)
ADD = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, campaign)"
    " SELECT 'bench-00010', '+49151' || 60000000 + %s + g, 'x', 'campaign-12' FROM generate_series(1, %s) g"
)
OF_CAMPAIGN = (
    "SELECT state, count(*) FROM shardd.all_outcomes WHERE campaign = 'campaign-12' AND id > %s GROUP BY state"
)


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> Iterator[str]:
    """The database, filled once for all tests of this module."""
    name = cluster.create_database(TEMPLATE)
    with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        fill(connection, SIZES)
        connection.execute("VACUUM (ANALYZE)")
    yield name
    cluster.drop_database(name)


@pytest.fixture
def dbname(postgres: Cluster, filled: str) -> str:
    return filled


async def test_an_operator_works_through_a_day(place: Place, browser: Browser, page: Page, fresh_number: str) -> None:
    producer, daemon = place.producer, place.daemon
    daemon.write_config(dashboard={"listen": f"127.0.0.1:{free_port()}"})
    await daemon.start()
    site = await sign_in(page, daemon)
    await expect(page.get_by_role("heading", level=1)).to_have_text("test: healthy")
    await expect(page.locator(".tiles")).to_contain_text("of 3,000")

    # A phone is linked, and sends.
    await page.goto(f"{site}/phones?search=bench-00003")
    await page.get_by_role("button", name="Make a link for bench-00003").click()
    link = await page.locator("#made code").inner_text()
    async with _another(browser) as owner:
        await owner.goto(link)
        await owner.get_by_role("button", name="Show a QR code").click()
        await place.control.scan(await scan_screen(owner), fresh_number)
        await expect(status(owner)).to_contain_text("is linked", timeout=PATIENCE * 1000)
    # Its last step closes the device's client, and then a receipt would come with the next login only.
    await daemon.until(lambda _: producer.execute("SELECT outcome FROM shardd.pairing_links") == [("paired",)])
    place.send("bench-00003", "first words")
    (message,) = await place.control.wait_messages(1, sender=fresh_number)
    assert message.text == "first words"
    delivered = "SELECT id FROM shardd.archive WHERE body = 'first words' AND delivered_at IS NOT NULL"
    await daemon.until(lambda _: producer.execute(delivered) != [])
    await page.goto(f"{site}/jobs?device=bench-00003&state=sent")
    await page.locator("tbody").get_by_role("link", name=str(producer.execute(delivered)[0][0])).click()
    await expect(page.locator(".story")).to_contain_text("delivered to the recipient's phone")
    await expect(page.locator("pre")).to_have_text("first words")

    # A campaign is paused, resumed, and cancelled.
    (last,) = producer.execute("SELECT max(id) FROM shardd.all_outcomes")[0]
    await page.goto(f"{site}/campaigns")
    await page.get_by_role("link", name="campaign-12", exact=True).click()
    await page.get_by_label("Why").fill("typo in the text")
    await page.get_by_role("button", name="Pause").click()
    await is_said(page, "Campaign campaign-12 is paused")
    producer.execute(ADD, 0, 3)
    assert dict(producer.execute(OF_CAMPAIGN, last)) == {"queued": 3}
    await page.get_by_role("button", name="Resume").click()
    await is_said(page, "Campaign campaign-12 is resumed")
    await daemon.until(lambda _: dict(producer.execute(OF_CAMPAIGN, last)) == {"sent": 3})
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    producer.execute(ADD, 10, 4)
    await page.get_by_role("button", name="Cancel for good").click()
    await expect(page.locator("main")).to_contain_text("4 waiting jobs end unsent")
    await page.get_by_role("button", name="Cancel for good").click()
    await is_said(page, "Campaign campaign-12 is cancelled with 4 waiting jobs.")
    await daemon.until(lambda _: dict(producer.execute(OF_CAMPAIGN, last)) == {"sent": 3, "cancelled": 4})

    # A doubt is decided, and what a retry of all that failed would do is counted.
    await page.goto(f"{site}/doubts")
    await expect(page.locator("main")).to_contain_text(f"{SIZES.finished // 500:,} messages were handed over")
    first = page.locator("tbody input[name=id]").first
    doubt = int(await first.input_value())
    await first.check()
    await press(page, "Sent")
    await is_said(page, "resolved 1 job")
    assert producer.execute("SELECT state FROM shardd.archive WHERE id = %s", doubt) == [("sent",)]
    await page.goto(f"{site}/jobs?state=failed")
    await page.get_by_role("button", name="Retry jobs").click()
    failed = producer.execute("SELECT count(*) FROM shardd.retries WHERE state = 'failed' AND obstacle IS NULL")[0][0]
    await expect(page.get_by_role("button", name=f"Retry: {failed:,} jobs")).to_be_visible(timeout=PATIENCE * 1000)

    # A worker is killed, and comes back.
    await page.goto(site)
    os.kill(daemon.worker_pids()[0], signal.SIGKILL)
    shards = page.get_by_role("region", name="Shards of this node").locator("tbody tr")
    restarted = shards.filter(has=page.locator("td:nth-child(3)", has_text=re.compile(r"^1$")))
    await expect(restarted).to_contain_text("running", timeout=PATIENCE * 1000)

    # The phone's owner unlinks it, and the operator's sign-in ends.
    await place.control.remove_device(f"{fresh_number}:1")
    place.send("bench-00003", "last words")
    await daemon.until(lambda _: place.row("bench-00003")[1] == "logged_out")
    await page.goto(f"{site}/devices/bench-00003")
    await expect(page.get_by_role("heading", level=1)).to_have_text("bench-00003 logged out")
    await page.goto(f"{site}/events")
    other = await page.context.new_page()
    await other.goto(f"{site}/account")
    await other.get_by_role("button", name="Sign out", exact=True).click()
    await expect(other.get_by_role("heading", level=1)).to_have_text("Sign in")
    await expect(page.locator("#connection")).to_contain_text("You are signed out")


@asynccontextmanager
async def _another(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    try:
        yield await context.new_page()
    finally:
        await context.close()
