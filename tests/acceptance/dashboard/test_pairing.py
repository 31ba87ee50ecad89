"""The owner of a phone links it behind a link: a real browser, the real library, and a phone that scans what the screen shows."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import zxingcpp
from PIL import Image
from playwright.async_api import Browser, Page, expect

from shardd.control_client import ask
from shardd.dashboard.pages import pairing
from shardd.dashboard.site import FORM_TOKEN
from tests.acceptance.dashboard.looks import is_fit_for_all
from tests.fixtures.browser import sign_in
from tests.fixtures.pairing import Place
from tests.support.daemon import PATIENCE, wait_gone
from tests.support.dashboard_routes import dashboard_routes
from tests.support.visitor import visitor

PAIRING = b"shardd.transports.whatsapp.linking.pairing"
HERE_ONLY = (
    "links lead to 127.0.0.1, which no other device can open; set dashboard.origin to where the phones' owners reach the "
    "dashboard, such as https://shardd.example"
)
DEAD = "This link does not work, or does not work any more"


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
    assert (made.code, made.err) == (0, f"warning: {HERE_ONLY}\n")
    return str(made.out.strip())


def status(page: Page) -> object:
    return page.get_by_role("status")


async def scan_screen(page: Page) -> str:
    """What a phone's camera reads on the screen."""
    await expect(page.get_by_role("img", name="QR code")).to_be_visible(timeout=PATIENCE * 1000)
    # At once: the stream may put the same code there anew while something waits for the picture to stand still.
    await page.evaluate("document.querySelector('img.qr').scrollIntoView()")
    picture = Image.open(io.BytesIO(await page.screenshot()))
    (code,) = zxingcpp.read_barcodes(picture, formats=zxingcpp.BarcodeFormat.QRCode)
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
    await expect(page.locator("#made")).to_contain_text(f"Warning: {HERE_ONLY}.")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="Copy the link of shop").press("Enter")
    await expect(page.locator("#copied")).to_have_text("The link of shop is copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == link
    await expect(page.locator("#phones").get_by_role("row", name="shop")).to_contain_text("not opened yet")
    await is_fit_for_all(page)

    await owner.goto(link)
    await expect(owner.get_by_role("heading", level=1)).to_have_text("Link a phone to Shop Berlin")
    await is_fit_for_all(owner)
    await owner.get_by_role("button", name="Show a QR code").click()
    code = await scan_screen(owner)
    await is_fit_for_all(owner)
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


async def test_a_code_is_typed_on_the_phone_and_a_number_that_is_none_is_said_before(
    lot: Place, owner: Page, fresh_number: str
) -> None:
    await owner.goto(await make_link(lot))
    number = owner.get_by_label("Number of the phone")
    await number.fill("12")
    await owner.get_by_role("button", name="Get a code to type").click()
    await expect(owner.get_by_role("alert")).to_contain_text("12")
    await is_fit_for_all(owner)
    await number.fill(f"+{fresh_number[:2]} {fresh_number[2:]}")
    await owner.get_by_role("button", name="Get a code to type").click()
    code = owner.locator("p.code")
    await expect(code).to_be_visible(timeout=PATIENCE * 1000)
    await is_fit_for_all(owner)
    assert await lot.control.enter_code(fresh_number, await code.inner_text()) == "paired"
    await expect(status(owner)).to_contain_text("Done", timeout=PATIENCE * 1000)
    await is_fit_for_all(owner)
    assert lot.row("shop") == (f"{fresh_number}:1@s.whatsapp.net", "ready", None)


async def test_a_code_that_nobody_scans_is_replaced_and_what_is_being_typed_stays(
    lot: Place, owner: Page, fresh_number: str
) -> None:
    await owner.goto(await make_link(lot))
    await owner.get_by_role("button", name="Show a QR code").click()
    first = await scan_screen(owner)
    picture = owner.get_by_role("img", name="QR code")
    before = await picture.get_attribute("src")
    assert before is not None
    await owner.get_by_text("This does not work").click()
    await owner.get_by_label("Number of the phone").fill("+62 81")
    # WhatsApp shows the first code for a minute.
    await expect(picture).not_to_have_attribute("src", before, timeout=2 * PATIENCE * 1000)
    await expect(owner.get_by_label("Number of the phone")).to_have_value("+62 81")
    await owner.evaluate("scrollTo(0, 0)")
    second = await scan_screen(owner)
    assert second != first
    await lot.control.scan(second, fresh_number)
    await expect(status(owner)).to_contain_text("Done", timeout=PATIENCE * 1000)


async def test_the_owner_reads_why_a_phone_is_not_linked_and_no_name_of_another_device(
    lot: Place, owner: Page, fresh_number: str
) -> None:
    other = str(int(fresh_number) + 500_000)
    await lot.add_paired("secret-name", fresh_number, index=7)
    await owner.goto(await make_link(lot))
    await owner.get_by_role("button", name="Show a QR code").click()
    await lot.control.scan(await scan_screen(owner), fresh_number)
    await expect(status(owner)).to_contain_text("already linked here", timeout=PATIENCE * 1000)
    assert "secret-name" not in await owner.content()
    assert lot.row("shop") == (None, "unpaired", None)

    await lot.add_paired("shop2", other)
    await owner.goto(await make_link(lot, "shop2"))
    await owner.get_by_role("button", name="Show a QR code").click()
    await lot.control.scan(await scan_screen(owner), str(int(other) + 1))
    await expect(status(owner)).to_contain_text("a phone with another number", timeout=PATIENCE * 1000)
    assert other not in await owner.content()
    await is_fit_for_all(owner)


async def test_a_link_is_its_first_browsers_and_all_that_do_not_work_say_the_same(
    lot: Place, browser: Browser, owner: Page
) -> None:
    for device in ("revoked", "replaced", "ended"):
        lot.add(device)
    link = await make_link(lot)
    dead = {device: await make_link(lot, device) for device in ("revoked", "replaced", "ended")}
    dead["unknown"] = link[:-43] + "x" * 43
    dead["odd"] = link[:-43] + "..%2fdevices"
    assert await make_link(lot, "replaced") != dead["replaced"]
    lot.producer.execute("DELETE FROM shardd.pairing_links WHERE device_id = 'revoked'")
    lot.producer.execute("UPDATE shardd.pairing_links SET ends_at = now() WHERE device_id = 'ended'")
    await owner.goto(link)
    # Who only looks does not use it up.
    dead["foreign"] = link
    async with other_browser(browser) as second:
        await second.goto(link)
        await expect(second.get_by_role("button", name="Show a QR code")).to_be_visible()
        await owner.get_by_role("button", name="Show a QR code").click()
        await scan_screen(owner)
        await second.get_by_role("button", name="Show a QR code").click()
        await expect(status(second)).to_contain_text(DEAD)
        answers = set()
        for url in dead.values():
            answer = await second.request.get(url)
            answers.add((answer.status, await answer.text()))
        assert len(answers) == 1
        assert "shop" not in answers.pop()[1]
        for _ in range(pairing.MOST_MISSES):
            answer = await second.request.get(link)
        assert answer.status == 429
        await second.goto(link.rpartition("/")[0])
        await expect(status(second)).to_contain_text(DEAD)
        await is_fit_for_all(second)
    await owner.reload()
    await scan_screen(owner)
    lot.producer.execute("DELETE FROM shardd.pairing_links WHERE device_id = 'shop'")
    (pid,) = pairing_pids(lot)
    await expect(status(owner)).to_contain_text("does not work any more", timeout=PATIENCE * 1000)
    await wait_gone(pid)


async def test_the_cookie_of_a_link_opens_no_other_page(lot: Place, owner: Page) -> None:
    link = await make_link(lot)
    await owner.goto(link)
    await owner.get_by_role("button", name="Show a QR code").click()
    await scan_screen(owner)
    (cookie,) = await owner.context.cookies()
    assert (cookie.get("path"), cookie.get("httpOnly"), cookie.get("sameSite")) == ("/pair", True, "Lax")
    site = link.partition("/pair/")[0]
    others = [one for one in dashboard_routes(lot.daemon.config_file) if not one.path.startswith(("/pair", "/static/"))]
    assert len(others) > 10
    secret = link.rpartition("/")[2]
    value = cookie.get("value")
    headers = {
        "Cookie": f"{pairing.COOKIE}={value}; shardd={value}; shardd-8484={value}",
        FORM_TOKEN: str(value),
        "Authorization": f"Bearer {secret}",
    }
    async with aiohttp.ClientSession() as session:
        for route in others:
            path = re.sub(r"\{(\w+)[^}]*\}", "1", route.path)
            method = "GET" if route.method == "*" else route.method
            async with session.request(method, site + path, headers=headers, allow_redirects=False) as answer:
                public = route.path.startswith("/sign-in")
                text = await answer.text()
            assert answer.status in {401, 403, 404, 429} or (public and answer.status < 500), (route.method, path)
            assert "Shop Berlin" not in text, path
        # Nor does another page, which a browser sends the cookie for, begin a pairing.
        async with session.post(f"{site}/pair/begin", headers=headers, data={"way": "qr"}) as answer:
            assert (answer.status, "does not come from the page" in await answer.text()) == (403, True)
    assert lot.producer.execute("SELECT tries FROM shardd.pairing_links") == [(1,)]


async def test_a_pairing_ends_with_its_page_and_is_tried_again_after_its_process_was_killed(
    lot: Place, owner: Page, fresh_number: str
) -> None:
    await owner.goto(await make_link(lot))
    await owner.get_by_role("button", name="Show a QR code").click()
    await scan_screen(owner)
    (pid,) = pairing_pids(lot)
    os.kill(pid, signal.SIGKILL)
    await expect(status(owner)).to_contain_text("ended unexpectedly", timeout=PATIENCE * 1000)
    await is_fit_for_all(owner)
    await owner.get_by_role("button", name="Show a QR code").click()
    await scan_screen(owner)
    (pid,) = pairing_pids(lot)
    tab = await owner.context.new_page()
    await owner.close()
    await wait_gone(pid)
    assert (lot.row("shop"), lot.sessions()) == ((None, "unpaired", None), [])
    # The same browser may come back while its link works.
    (dashboard,) = lot.daemon.dashboard_pids()
    os.kill(dashboard, signal.SIGKILL)
    await wait_gone(dashboard)
    await tab.goto(f"http://{lot.daemon.settings['dashboard']['listen']}/pair")
    await tab.get_by_role("button", name="Show a QR code").click()
    await lot.control.scan(await scan_screen(tab), fresh_number)
    await expect(status(tab)).to_contain_text("Done", timeout=PATIENCE * 1000)


async def test_a_pairing_ends_with_the_process_of_the_dashboard_and_a_linked_phone_is_unlinked_again(
    lot: Place, owner: Page, fresh_number: str
) -> None:
    await owner.goto(await make_link(lot))
    for is_scanned in (False, True):
        await owner.get_by_role("button", name="Show a QR code").first.click()
        code = await scan_screen(owner)
        (pid,) = pairing_pids(lot)
        if is_scanned:
            await lot.control.scan(code, fresh_number)
            await expect(status(owner)).to_contain_text(f"+{fresh_number} is linked. Its first login")
        (dashboard,) = lot.daemon.dashboard_pids()
        os.kill(dashboard, signal.SIGKILL)
        await wait_gone(dashboard)
        await wait_gone(pid)
        assert (lot.row("shop"), lot.sessions()) == ((None, "unpaired", None), [])
        await owner.goto(f"http://{lot.daemon.settings['dashboard']['listen']}/pair")
    await lot.control.wait_events("logout", device=fresh_number)


async def test_a_list_of_devices_becomes_a_list_of_links(lot: Place, page: Page) -> None:
    lot.producer.add_devices(1)
    site = await sign_in(page, lot.daemon)
    await page.goto(f"{site}/phones")
    await page.get_by_text("Links for many devices").click()
    await page.get_by_label("or a CSV file").set_input_files(
        {
            "name": "list.csv",
            "mimeType": "text/csv",
            "buffer": b"Device;Transport;Shop\nshop;;1\nnew;whatsapp;2\nd1;;\nnone;;\n",
        }
    )
    await page.get_by_role("button", name="Make links").click()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download as CSV").click()
    rows = {row["device"]: row for row in read_csv(Path(await (await download.value).path()))}
    assert list(rows) == ["shop", "new", "d1", "none"]
    assert all(rows[one]["link"].startswith(f"{site}/pair/") and rows[one]["ends_at"] for one in ("shop", "new"))
    assert "sends by sandbox" in rows["d1"]["error"]
    assert "unknown" in rows["none"]["error"]
    assert lot.row("new") == (None, "unpaired", None)
    await expect(page.locator("#how-many")).to_have_text("2 devices wait for a phone.")
    await is_fit_for_all(page)
    await page.reload()
    assert rows["shop"]["link"] not in await page.content()
    await page.get_by_role("button", name="Revoke the link of shop").click()
    await expect(page.locator("#done")).to_contain_text("device shop does not work any more")
    answer = await page.request.get(rows["shop"]["link"])
    assert answer.status == 410
    acts = lot.producer.execute("SELECT act, target, detail FROM shardd.acts WHERE act <> 'sign in' ORDER BY id")
    assert acts == [
        ("add", "device new", ""),
        ("make pairing links", "2 of 4 devices", "for 15 minutes"),
        ("revoke pairing link", "device shop", ""),
    ]
    stored = repr(lot.producer.execute("SELECT * FROM shardd.acts")) + lot.daemon.log_file.read_text()
    assert all(row["link"].rpartition("/")[2] not in stored for row in rows.values() if row["link"])


async def test_a_list_with_mistakes_is_kept_and_each_line_is_named(lot: Place, page: Page) -> None:
    lot.producer.add_devices(1)
    site = await sign_in(page, lot.daemon)
    await page.goto(f"{site}/phones")
    await page.get_by_text("Links for many devices").click()
    text = page.get_by_label("Ids of devices")
    written = "device,transport\nshop,\n" + "".join(f"new {number},whatsapp\n" for number in range(22)) + "d1,sandbox\n"
    await text.fill(written)
    await page.get_by_role("button", name="Make links").click()
    failed = page.locator("#failed")
    await expect(failed).to_contain_text("23 lines of the list are wrong, and nothing was done: correct the list")
    lines = failed.get_by_role("listitem")
    await expect(lines).to_have_count(21)
    await expect(lines.first).to_have_text(re.compile("^line 3: 'new 0' is not the id of a device: letters, digits"))
    await expect(lines.last).to_have_text("and 3 more lines")
    await is_fit_for_all(page)
    assert await text.input_value() == written
    # Devices that cannot have one: nothing is made, and that is no act that was done.
    await text.fill("d1\nnone\n")
    await page.get_by_role("button", name="Make links").click()
    await expect(failed).to_contain_text("no link was made")
    await expect(lines).to_have_text(
        [re.compile("^device d1: sends by sandbox"), re.compile("^device none: unknown; to add it")]
    )
    await text.fill("device,transport\n")
    await page.get_by_role("button", name="Make links").click()
    await expect(failed).to_contain_text("the list names no device")
    await expect(lines).to_have_count(0)
    done = lot.producer.execute("SELECT act FROM shardd.acts WHERE result = 'done' AND act <> 'sign in'")
    assert done == []
    assert lot.row("shop") == (None, "unpaired", None)


async def test_links_on_the_command_line(lot: Place) -> None:
    lot.producer.add_devices(1)
    made = await lot.shardd("device", "link", "--json", "--minutes=60", "shop", "d1", "none")
    assert made.code == 64
    (one,) = made.json
    assert (one["device"], "/pair/" in one["link"]) == ("shop", True)
    assert made.err == (
        f"warning: {HERE_ONLY}\ndevice none: unknown\ndevice d1: no link was made: only whatsapp devices have a phone\n"
    )
    wrong = await lot.shardd("device", "link", "shop", "--minutes=7")
    assert wrong.code == 64


async def test_links_of_an_origin_lead_there_and_nobody_is_warned(lot: Place) -> None:
    lot.daemon.write_config(dashboard={"origin": "https://shardd.example"})
    await ask(lot.daemon.socket, "POST", "/reload")
    made = await lot.shardd("device", "link", "shop")
    assert made.out.startswith("https://shardd.example/pair/")
    assert made.err == ""
    async with visitor(lot.daemon) as operator:
        await operator.sign_in_by_link(lot.daemon)
        page = await (await operator.request("POST", "/phones/links", data={"devices": "shop"})).text()
    assert "https://shardd.example/pair/" in page
    assert "Warning" not in page


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@asynccontextmanager
async def other_browser(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    try:
        yield await context.new_page()
    finally:
        await context.close()
