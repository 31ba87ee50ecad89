"""The owner of a phone links it behind a link: a real browser, the real library, and a phone that scans what the screen shows."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zxingcpp
from axe_playwright_python.async_playwright import Axe
from PIL import Image
from playwright.async_api import Browser, Page, expect

from tests.fixtures.browser import free_port, sign_in
from tests.fixtures.pairing import Place
from tests.support.daemon import PATIENCE, wait_gone

PAIRING = b"shardd.transports.whatsapp.linking.pairing"
DEAD = "This link does not work, or does not work any more"


@pytest.fixture
async def lot(place: Place) -> Place:
    """The daemon runs with a dashboard, and has an unpaired device `shop`."""
    place.daemon.write_config(dashboard={"listen": f"127.0.0.1:{free_port()}"})
    await place.daemon.start()
    place.add("shop", label="Shop Berlin")
    return place


@pytest.fixture
async def owner(browser: Browser) -> AsyncIterator[Page]:
    """Another browser, of the phone's owner, which asks nobody but the dashboard."""
    context = await browser.new_context()
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.append(request.url) if "//127.0.0.1:" not in request.url else None)
    yield page
    assert [one for one in errors if not one.startswith("data:")] == []


async def make_link(place: Place, device: str = "shop", *options: str) -> str:
    made = await place.shardd("device", "link", device, *options)
    assert (made.code, made.err) == (0, "")
    return str(made.out.strip())


def status(page: Page) -> object:
    return page.get_by_role("status")


async def scan_screen(page: Page) -> str:
    """What a phone's camera reads on the screen."""
    await expect(page.get_by_role("img", name="QR code")).to_be_visible(timeout=PATIENCE * 1000)
    await page.get_by_role("img", name="QR code").scroll_into_view_if_needed()
    picture = Image.open(io.BytesIO(await page.screenshot()))
    (code,) = zxingcpp.read_barcodes(picture)
    return code.text


def pairing_pids(place: Place) -> list[int]:
    """The processes of pairings that this daemon's dashboard started."""
    found = []
    parents = set(place.daemon.dashboard_pids())
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and PAIRING in (folder / "cmdline").read_bytes():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in parents:
                    found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def test_an_operator_makes_a_link_and_the_phones_owner_scans_the_code_on_the_screen(
    lot: Place, page: Page, owner: Page, fresh_number: str
) -> None:
    site = await sign_in(page, lot.daemon)
    await page.goto(f"{site}/phones")
    await page.get_by_role("button", name="Make a link for shop").click()
    link = await page.locator("#made code").inner_text()
    assert re.fullmatch(rf"{site}/pair/[A-Za-z0-9_-]{{43}}", link)
    await expect(page.locator("#phones").get_by_role("row", name="shop")).to_contain_text("not opened yet")
    assert await no_violations(page) == []

    await owner.goto(link)
    await expect(owner.get_by_role("heading", level=1)).to_have_text("Link a phone to Shop Berlin")
    assert await no_violations(owner) == []
    await owner.get_by_role("button", name="Show a QR code").click()
    code = await scan_screen(owner)
    assert await no_violations(owner) == []
    assert code.startswith("https://wa.me/settings/linked_devices#")
    (pid,) = pairing_pids(lot)
    await lot.control.scan(code, fresh_number)
    await expect(status(owner)).to_contain_text(f"Done: +{fresh_number} is linked", timeout=PATIENCE * 1000)
    await wait_gone(pid)
    assert lot.row("shop") == (f"{fresh_number}:1@s.whatsapp.net", "ready", None)
    lot.send("shop", "first words")
    (message,) = await lot.control.wait_messages(1, sender=fresh_number)
    assert message.text == "first words"

    await page.reload()
    await expect(page.locator("#phones").get_by_role("row", name="shop")).to_contain_text("linked")
    await page.goto(link)
    await expect(status(page)).to_contain_text(DEAD)


async def no_violations(page: Page) -> list[str]:
    found = await Axe().run(page)
    return [
        f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found.response["violations"]
    ]
