"""Where to look while the demonstration runs: the dashboard on a port of its own, and links that sign in to it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from shardd.config import Config, load_config
from shardd.config.values.network import split_address
from shardd.control_client import ask_now
from shardd.errors import UsageError
from shardd.supervisor.admin.sign_in_links import LIVES

PORT: Final = "SHARDD_DEMO_PORT"
"""The variable with which a config lets us choose the dashboard's port."""
ANOTHER_AFTER: Final = LIVES * 0.9
"""Seconds after which a link is too old to be relied on."""


def load_with_free_port(file: Path) -> Config:
    """The config, whose dashboard has another port if its own is in use and `PORT` decides. Raises SharddError."""
    config = load_config(file)
    if config.dashboard.listen is not None and not _is_free(config.dashboard.listen):
        with socket.create_server(("127.0.0.1", 0)) as found:
            os.environ[PORT] = str(found.getsockname()[1])  # the daemon inherits it
        config = load_config(file)
    return config


def _is_free(address: str) -> bool:
    host, port = split_address(address)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False


class Page:
    """The dashboard of the running demonstration."""

    def __init__(self, config: Config, console: Console) -> None:
        self._config = config
        self._console = console
        self._linked_at: float | None = None
        """None: the page is not there."""

    def link(self) -> str:
        """A new link, as `shardd dashboard link` prints it. Raises UsageError where there is no page."""
        return str(ask_now(self._config.control_socket, "POST", "/dashboard/links")["url"])

    def say(self, words: str) -> None:
        """Print a new link below these words."""
        try:
            link = self.link()
        except UsageError as error:
            self._console.print(str(error), highlight=False, markup=False)
            return
        self._linked_at = time.monotonic()
        self._console.print(words)
        # Never broken: a narrow terminal wraps it without a line break, so that it can be clicked and copied.
        self._console.print(link, soft_wrap=True, style="bold", highlight=False, markup=False)

    def keep_fresh(self) -> None:
        """Print another link before the last one is too old."""
        if self._linked_at is not None and time.monotonic() >= self._linked_at + ANOTHER_AFTER:
            self.say("another link, because the last one is about to become invalid:")
