"""Draws the README's pictures from the demonstration.

It runs twice: as everybody runs it, for the picture of its terminal, and with pauses between the messages of a device, for
that of its dashboard.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import playwright.sync_api
from clone_daemon import Stopped, stop_on_signals
from demo_page import Page
from demo_run import HERE, Glimpse, Options, run
from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console

from shardd.errors import SharddError

WIDTH, HEIGHT, SHARPNESS = 1360, 800, 1.5
"""Of the browser's window in its own pixels, and pixels of the picture for each of them."""
LARGEST: Final = 150_000
"""Bytes of a picture: whoever opens the README loads it."""
HALF, MOST = 0.5, 0.8
"""Shares of the jobs that are sent when the terminal and the dashboard are drawn."""


def main() -> int:
    """Draw; returns the exit status."""
    folder, slow = _options()
    quick = replace(slow, jobs=min(slow.jobs, Options.jobs), seconds=min(slow.seconds, Options.seconds), gap=None)
    console = Console()
    stop_on_signals()
    try:
        folder.mkdir(exist_ok=True)
        terminal = Glimpse(HALF, lambda picture, _: picture.save(folder / "terminal.svg"))
        dashboard = Glimpse(MOST, lambda _, page: _draw_dashboard(page, folder))
        return run(quick, console, terminal) or run(slow, console, dashboard)
    except Stopped:
        console.print("stopped")
        return 130
    except (SharddError, playwright.sync_api.Error) as error:
        print(f"draw: {error}", file=sys.stderr)
        return 1


def _options() -> tuple[Path, Options]:
    parser = argparse.ArgumentParser(prog="./scripts/draw", description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE / "pictures", help="where to (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=Options.devices, help="of both runs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=45_000, help="of the slower run (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the slower run (default: %(default)s)")
    parser.add_argument("--gap", default="20s..60s", help="of the slower run (default: %(default)s)")
    parser.add_argument("--config", type=Path, default=Options.config, help="another config file")
    found = vars(parser.parse_args())
    return found.pop("folder"), Options(**found)


def _draw_dashboard(page: Page, folder: Path) -> None:
    """The overview, in either theme."""
    link = page.link()  # before the window, which has an event loop of its own
    with _window() as window:
        window.goto(link)
        window.get_by_role("button", name="Sign in").click()
        for shown in (".chart svg", "#queued", "#campaigns"):  # what is counted after the first look
            window.locator(shown).wait_for()
        for theme in ("light", "dark"):
            window.emulate_media(color_scheme=theme)
            _save(window.screenshot(full_page=True), folder / f"dashboard-{theme}.png")


@contextmanager
def _window() -> Iterator[playwright.sync_api.Page]:
    """Of Debian's Chromium: Playwright's own would have to be downloaded."""
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            size: playwright.sync_api.ViewportSize = {"width": WIDTH, "height": HEIGHT}
            yield browser.new_page(viewport=size, device_scale_factor=SHARPNESS, reduced_motion="reduce")
        finally:
            browser.close()


def _save(drawn: bytes, file: Path) -> None:
    """With a palette, which makes it several times smaller. Raises SharddError if it is not small."""
    with Image.open(io.BytesIO(drawn)) as picture:
        # By coverage: the words and keys in colours have few points, and would lose them by the median cut.
        painted = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    painted.save(file, optimize=True)
    if (size := file.stat().st_size) > LARGEST:
        raise SharddError(f"{file} has {size} bytes, more than {LARGEST}: choose less SHARPNESS or a smaller WIDTH")


if __name__ == "__main__":
    sys.exit(main())
