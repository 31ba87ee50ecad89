"""What the tests of the pages have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.support.daemon import Daemon, Producer

StartDaemon = Callable[..., Awaitable[Daemon]]
SCHEMES = ("light", "dark")
WIDTHS = (1280, 360)
EVER = "snapshot=999999999999:999999999999:"
"""Whenever the jobs came: what a page adds to an act on those that it has counted."""
TOO_WIDE = """[...document.querySelectorAll("body *")]
  .filter((one) => !one.parentElement.closest(".wide") || getComputedStyle(one).position === "absolute")
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth)
  .map((one) => one.outerHTML.slice(0, 100))"""

NOT_STACKED = """[...document.querySelectorAll(".wide")].filter((one) => one.scrollWidth > one.clientWidth)
  .map((one) => one.outerHTML.slice(0, 100))"""
"""Tables that scroll sideways."""
WRONG_LABELS = """[...document.querySelectorAll(".wide table")].flatMap((table) => {
  const heads = [...table.tHead.rows[0].cells].map((one) => one.textContent.trim());
  return [...table.tBodies[0].rows].flatMap((row) => [...row.cells])
    .filter((one) => one.colSpan === 1 && one.textContent.trim() && !one.querySelector("button"))
    .filter((one) => one.dataset.label !== heads[one.cellIndex])
    .map((one) => `${heads[one.cellIndex]}: ${one.outerHTML.slice(0, 100)}`);
})"""
"""Cells that a narrow screen would show with other words than those of their column."""


async def is_fit_for_all(page: Page) -> None:
    """axe finds nothing in either theme, on a wide and a narrow screen, and the page with its tables fits the narrow one.

    Without motion, so that no colour is halfway to another.
    """
    size = page.viewport_size
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]  # one of its words
            found = await Axe().run(page)
            assert found.response["violations"] == [], f"{page.url} {scheme} {width}: {found.generate_report()}"
        if await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            raise AssertionError(f"{page.url} scrolls sideways at {width}: {await page.evaluate(TOO_WIDE)}")
    assert await page.evaluate(NOT_STACKED) == [], page.url
    assert await page.evaluate(WRONG_LABELS) == [], page.url
    if size is not None:
        await page.set_viewport_size(size)


async def press(page: Page, name: str) -> None:
    """A button that asks first, and the same words in its dialog."""
    await page.get_by_role("button", name=name, exact=True).first.click()
    await page.locator("#sure").get_by_role("button", name=name, exact=True).click()


async def is_said(page: Page, words: str) -> None:
    """The page says what was done."""
    await expect(page.locator("#done")).to_contain_text(words)


def waiting(producer: Producer, number: int = 1, **fields: str) -> list[int]:
    """Jobs of d1; their ids in order."""
    columns = {"device_id": "d1", "recipient": "+4915112345678", "body": "hello", **fields}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO shardd.jobs ({names}) SELECT {marks} FROM generate_series(1, %s) RETURNING id"
    made = producer.execute(statement, *columns.values(), number)
    return sorted(one for (one,) in made)


def end(producer: Producer, ids: list[int], state: str, error: str = "why", error_class: str = "timeout") -> None:
    """Have them end like this."""
    producer.execute("SELECT shardd.end_jobs(%s, %s, %s, %s)", ids, state, error, error_class)
