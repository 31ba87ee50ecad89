"""An operator opts somebody out on the dashboard, which only that person can take back."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.dashboard.looks import is_fit_for_all, is_said, press, waiting
from tests.support.daemon import Producer


@pytest.fixture
async def site(site: str, producer: Producer) -> str:
    """With a device d1 that is paused."""
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d1', 'sandbox', now())")
    return site


async def test_opting_out_asks_first_with_the_number_as_it_was_read(site: str, producer: Producer, page: Page) -> None:
    (job,) = waiting(producer, recipient="+4915112345678")
    await page.goto(f"{site}/jobs?recipient=0049151/12345679")
    await expect(page.locator("main")).to_contain_text("To +4915112345679:")
    await expect(page.locator("main")).to_contain_text("No such jobs.")
    await page.goto(f"{site}/jobs/{job}")
    await expect(page.locator(".facts").first).not_to_contain_text("opted out")

    await page.goto(f"{site}/opt-outs")
    await page.get_by_role("textbox", name="Number").fill("0151 x 12")
    await page.get_by_role("button", name="Look up").click()
    await expect(page.locator("#wrong")).to_contain_text("'0151 x 12' is not a phone number")
    await expect(page.get_by_role("textbox", name="Number")).to_have_value("0151 x 12")
    await page.get_by_role("textbox", name="Number").fill("0049 (151) 1234-5678")
    await page.get_by_role("button", name="Look up").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("+4915112345678: has not opted out")
    await is_fit_for_all(page)
    await page.get_by_role("textbox", name="Note").fill("by phone")
    await page.get_by_role("button", name="Opt out", exact=True).click()
    await expect(page.locator("#question")).to_have_text(
        "Opt out +4915112345678? Nobody but the person can take this back."
    )
    await page.locator("#sure").get_by_role("button", name="Back").click()
    await expect(page.locator("#sure")).to_be_hidden()
    assert producer.execute("SELECT address FROM shardd.opt_outs") == []
    await press(page, "Opt out")
    await is_said(page, "+4915112345678 is opted out")
    assert producer.execute("SELECT address, note FROM shardd.opt_outs") == [("4915112345678", "by phone")]

    await page.goto(f"{site}/jobs/{job}")
    await expect(page.locator(".facts").first).to_contain_text("the recipient has opted out: it will not be sent")
    await page.goto(f"{site}/opt-outs")
    await expect(page.get_by_role("link", name="+4915112345678", exact=True)).to_be_visible()
    await is_fit_for_all(page)
    await expect(page.locator("main")).to_contain_text("No more messages are sent to those on this list. Nobody but")
    producer.execute("""UPDATE shardd.settings SET value = '["reply", "service"]' WHERE name = 'opt_outs.exempt'""")
    await page.reload()
    but = "but those of the class reply and service (opt_outs.exempt)"
    await expect(page.locator("main")).to_contain_text(f"to those on this list, {but}. Nobody but")
    await page.get_by_role("textbox", name="Number").fill("+49 151 12345670")
    await page.get_by_role("button", name="Look up").click()
    await expect(page.locator("main")).to_contain_text(f"to a person who is opted out, {but}.")
    await press(page, "Opt out")
    await is_said(page, f"+4915112345670 is opted out: no more messages are sent to them, {but}.")
