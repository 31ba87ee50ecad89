"""Who may use the dashboard, what they may do, and how their acts are recorded: a real daemon and a real browser."""

from __future__ import annotations

from collections.abc import Callable

from playwright.async_api import Page, expect

from shardd.dashboard.passwords import make_hash
from tests.fixtures.browser import free_port
from tests.support.daemon import Daemon

PASSWORD = "correct horse battery"


async def test_a_user_signs_in_with_a_password_and_out_everywhere(
    make_daemon: Callable[..., Daemon], page: Page
) -> None:
    daemon = make_daemon(
        dashboard={
            "listen": f"127.0.0.1:{free_port()}",
            "users": {"ada": {"password": make_hash(PASSWORD), "role": "look"}},
        }
    )
    await daemon.start()
    site = f"http://{daemon.settings['dashboard']['listen']}"
    await page.goto(f"{site}/devices?state=ready")
    await page.get_by_label("Name").fill("ada")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Devices")
    await page.goto(f"{site}/account")
    await page.get_by_role("button", name="Sign out everywhere").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_role("button", name="Back").click()
    await page.get_by_role("button", name="Sign out everywhere").click()
    await page.get_by_role("dialog").get_by_role("button", name="Sign out everywhere").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
