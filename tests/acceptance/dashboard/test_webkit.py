"""The pages in WebKit, the engine of every browser on an iPhone: the other tests look in Chromium only."""

from __future__ import annotations

import io

import zxingcpp
from PIL import Image
from selenium.webdriver import WebKitGTK
from selenium.webdriver.common.by import By

from shardd.control_client import ask
from tests.acceptance.dashboard.test_pairing import make_link
from tests.fixtures.pairing import Place
from tests.fixtures.webkit import WebKit


async def test_an_operator_signs_in_and_sees_what_happens(lot: Place, webkit: WebKit) -> None:
    link = str((await ask(lot.daemon.socket, "POST", "/dashboard/links"))["url"])
    site = link[: link.index("/", len("http://"))]
    await webkit.open(link)
    await webkit.press("Sign in")
    await webkit.heading("test: healthy")
    lot.add("till", transport="sandbox", state="ready")
    await webkit.says(".tiles", "of 2")
    await webkit.open(f"{site}/devices/till")
    await webkit.press("Pause")
    await webkit.heading("till paused")
    await webkit.press("Resume")
    await webkit.heading("till ready")
    await webkit.open(f"{site}/events")
    await webkit.heading("Events")
    lot.send("till", "hello")
    await webkit.says("tbody tr", "job.sent")


async def test_a_phone_scans_the_code_on_the_screen(lot: Place, webkit: WebKit, fresh_number: str) -> None:
    await webkit.open(await make_link(lot))
    await webkit.heading("Link a phone to Shop Berlin")
    await webkit.press("Show a QR code")
    await lot.control.scan(await webkit.until(_code), fresh_number)
    await webkit.says("[role=status]", f"Done: +{fresh_number} is linked")
    lot.send("shop", "first words")
    (message,) = await lot.control.wait_messages(1, sender=fresh_number)
    assert message.text == "first words"


def _code(page: WebKitGTK) -> str | None:
    """What a phone's camera reads on the screen."""
    for picture in page.find_elements(By.CSS_SELECTOR, "img.qr"):
        page.execute_script("arguments[0].scrollIntoView()", picture)
    found = zxingcpp.read_barcodes(
        Image.open(io.BytesIO(page.get_screenshot_as_png())), formats=zxingcpp.BarcodeFormat.QRCode
    )
    return found[0].text if found else None
