"""What an operator does on the pages of campaigns, opt-outs, the inbox and webhooks, in a real browser."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.acceptance.dashboard.looks import StartDaemon, press
from tests.fixtures.browser import free_port, sign_in
from tests.support.daemon import Daemon, Producer

ADD = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, campaign)"
    " SELECT 'd1', '+49151' || %s + g, 'x', %s FROM generate_series(1, %s) g"
)
WRITE = (
    "INSERT INTO shardd.messages (device_id, message_id, sender, number, name, own, status, kind, text, opt_out, written_at,"
    " media_type, media_size, quoted_id, job_id) VALUES ('d1', %s, '+4915112345678', '+4915112345678', %s, false, false, 'image',"
    " %s, false, now(), 'image/jpeg', 4711, 'Q1', 12)"
)


async def test_a_campaign_is_paused_resumed_and_cancelled(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(1)
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/campaigns/spring")
    await page.get_by_label("Why").fill("typo in the text")
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#done")).to_contain_text("Campaign spring is paused")
    producer.execute(ADD, 1_000_000, "spring", 3)
    producer.execute(ADD, 2_000_000, None, 2)
    await producer.until_finished(daemon, 2)
    assert producer.states() == {"queued": 3, "sent": 2}
    await expect(page.locator("main")).to_contain_text("typo in the text")

    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("#done")).to_contain_text("Campaign spring is resumed")
    await producer.until_finished(daemon, 5)

    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    producer.execute(ADD, 3_000_000, "spring", 10_004)
    await page.get_by_role("button", name="Cancel for good").click()
    await expect(page.locator("main")).to_contain_text("10,000 or more waiting jobs end unsent")
    await page.get_by_label("Why").fill("wrong text")
    await page.get_by_role("button", name="Cancel for good").click()
    await expect(page.locator("#done")).to_contain_text("Campaign spring is cancelled with 10,004 waiting jobs.")
    await producer.until_finished(daemon, 10_009)
    assert producer.states() == {"sent": 5, "cancelled": 10_004}
    assert ("cancel", "10,004 waiting jobs; wrong text") in producer.execute("SELECT act, detail FROM shardd.acts")
    await expect(page.get_by_role("heading", level=1)).to_have_text("spring cancelled")
    await expect(page.get_by_role("button", name="Resume")).to_be_hidden()


async def test_a_campaign_that_another_changes_offers_what_fits(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/campaigns/spring")
    await expect(page.get_by_role("button", name="Pause")).to_be_visible()
    producer.execute("UPDATE shardd.campaigns SET state = 'paused', state_since = now()")
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    await expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    producer.execute("UPDATE shardd.campaigns SET state = 'cancelled', state_since = now()")
    await expect(page.get_by_role("button", name="Resume")).to_be_hidden()


async def test_an_opt_out_that_is_entered_stops_a_job(
    start_daemon: StartDaemon, producer: Producer, page: Page
) -> None:
    daemon = await start_daemon(transports={"whatsapp": {"default_region": "DE"}})
    producer.add_devices(1)
    producer.execute("UPDATE shardd.devices SET paused_at = now()")
    await daemon.until(lambda status: status["device_states"]["paused"] == 1)
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+4915112345678', 'x')")
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/opt-outs")
    await page.get_by_role("textbox", name="Number").fill("0151 / 1234 5678")
    await page.get_by_role("button", name="Look up").click()
    await page.get_by_role("textbox", name="Note").fill("by phone")
    await press(page, "Opt out")
    await expect(page.locator("#done")).to_contain_text("+4915112345678 is opted out")
    producer.execute("UPDATE shardd.devices SET paused_at = NULL")
    await daemon.until(lambda _: producer.states() == {"opted_out": 1})
    await page.goto(f"{site}/opt-outs")
    await page.get_by_role("textbox", name="Number").fill("+49 (0)151 12345678")
    await page.get_by_role("button", name="Look up").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("+4915112345678: opted out")
    await expect(page.locator("main")).to_contain_text("by phone")
    await expect(page.get_by_role("region", name="Stopped jobs").get_by_role("row")).to_have_count(2)
    await page.goto(f"{site}/opt-outs?number=nobody")
    await expect(page.get_by_role("alert").filter(has_text="nobody")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Number")).to_have_value("nobody")
    assert (await Axe().run(page)).response["violations"] == []
    acts = producer.execute("SELECT act, target || detail FROM shardd.acts WHERE act = 'opt out'")
    assert [act for act, _ in acts] == ["opt out"]
    assert "4915112345678" not in acts[0][1]


async def test_what_people_write_appears_and_is_shown_as_text(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(1)
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/inbox?device=d1")
    await expect(page.locator("#messages")).to_contain_text("no messages")
    evil = "<script>document.title = 'broken'</script>"
    producer.execute(WRITE, "M1", evil, evil)
    await expect(page.locator("#messages")).to_contain_text(evil)
    await page.locator("#messages").get_by_role("link").first.click()
    await expect(page.locator("pre")).to_have_text(evil)
    await expect(page.locator("main")).to_contain_text("image/jpeg, 4,711 bytes")
    await expect(page.get_by_role("link", name="12", exact=True)).to_have_attribute("href", "/jobs/12")
    assert "broken" not in await page.title()


async def test_older_pages_continue_where_the_newer_ones_end(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.add_devices(1)
    for number in range(1, 61):
        producer.execute(WRITE, f"M{number}", "Ann", f"text {number}.")
    producer.execute(
        "INSERT INTO shardd.opt_outs (recipient) SELECT '+4915122' || 200000 + g FROM generate_series(1, 60) g"
    )
    producer.execute(
        "INSERT INTO shardd.campaigns (id, created_at) SELECT 'c' || g, now() - g * interval '1s' FROM generate_series(1, 60) g"
    )
    site = await sign_in(page, daemon)
    for path, first, last in (
        ("/inbox", "text 60.", "text 1."),
        ("/opt-outs", "4915122200060", "4915122200001"),
        ("/campaigns", "c1", "c60"),
    ):
        await page.goto(site + path)
        await expect(page.locator("tbody tr")).to_have_count(50)
        await expect(page.locator("tbody tr").first).to_contain_text(first)
        await page.get_by_role("link", name="Older").click()
        await expect(page.locator("tbody tr")).to_have_count(10)
        await expect(page.locator("tbody tr").last).to_contain_text(last)
        await expect(page.get_by_role("link", name="Older")).to_have_count(0)


async def test_a_failing_webhook_is_seen_and_retried(start_daemon: StartDaemon, producer: Producer, page: Page) -> None:
    port = free_port()
    hook = {"url": f"http://127.0.0.1:{port}/hook", "kinds": ["device.*"], "secret": "whsec_" + "c2VjcmV0" * 4}
    daemon = await start_daemon(webhooks={"crm": hook})
    producer.add_devices(1)
    site = await sign_in(page, daemon)
    await page.goto(f"{site}/webhooks")
    await expect(page.get_by_role("row", name="crm failing")).to_contain_text("Connection refused", timeout=60_000)
    await page.get_by_role("link", name="crm").click()
    await page.get_by_role("button", name="Retry now").click()
    await expect(page.locator("#done")).to_contain_text("Webhook crm is tried at once")
    assert producer.execute("SELECT retries_asked FROM shardd.webhook_cursors") == [(1,)]

    # Nobody tries one that is no longer in the config.
    producer.execute(
        "INSERT INTO shardd.webhook_cursors"
        ' SELECT (jsonb_populate_record(crm, \'{"name": "gone", "failures": 50}\')).* FROM shardd.webhook_cursors crm'
    )
    await page.goto(site)
    await expect(page.locator("main")).to_contain_text("crm")
    await expect(page.locator("main")).not_to_contain_text("gone")


async def test_the_keyboard_is_enough(daemon: Daemon, producer: Producer, page: Page) -> None:
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    await sign_in(page, daemon)

    async def press_until(words: str) -> None:
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.textContent.trim()") == words:
                return
        raise AssertionError(f"no Tab reaches {words}")

    await page.locator("body").press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await press_until("Campaigns")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Campaigns")
    await press_until("spring")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("spring")
    await press_until("Pause")
    await page.keyboard.press("Enter")
    await expect(page.locator("#done")).to_contain_text("paused")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing(daemon: Daemon, producer: Producer, browser: Browser, theme: str) -> None:
    producer.add_devices(3)
    producer.execute("UPDATE shardd.devices SET paused_at = now(), paused_why = 'test' WHERE id = 'd2'")
    producer.execute("INSERT INTO shardd.campaigns (id, label) VALUES ('spring', 'Spring sale'), ('autumn', NULL)")
    producer.execute("UPDATE shardd.campaigns SET state = 'paused', why = 'typo' WHERE id = 'autumn'")
    producer.execute(ADD, 1_000_000, "spring", 5)
    producer.execute(WRITE, "M1", "Ann", "Hello")
    producer.execute("INSERT INTO shardd.opt_outs (recipient, note) VALUES ('+4915112345678', 'by phone')")
    await producer.until_finished(daemon, 5)
    message = producer.execute("SELECT id FROM shardd.messages")[0][0]
    paths = (
        "/",
        "/campaigns",
        "/campaigns/spring",
        "/campaigns/spring/cancel",
        "/opt-outs",
        "/opt-outs?number=%2B4915112345678",
        "/inbox",
    )
    for width in (1280, 390):
        context = await browser.new_context(color_scheme=theme, viewport={"width": width, "height": 850})  # type: ignore[arg-type]
        page = await context.new_page()
        site = await sign_in(page, daemon)
        for path in (*paths, f"/inbox/{message}", "/webhooks", "/events"):
            await page.goto(site + path)
            found = (await Axe().run(page)).response["violations"]
            assert found == [], f"{path} {width}"
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide"
        if width == 390:
            await page.get_by_role("button", name="Menu").click()
            assert (await Axe().run(page)).response["violations"] == []
        await context.close()
