"""Fixtures: a daemon that runs with its dashboard, and a browser that is signed in there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Page

from tests.acceptance.dashboard.looks import StartDaemon
from tests.fixtures.browser import free_port, sign_in
from tests.fixtures.pairing import Place
from tests.support.daemon import Daemon


@pytest.fixture
def start_daemon(make_daemon: Callable[..., Daemon]) -> StartDaemon:
    """Starts daemons with a dashboard: `await start_daemon(users=USERS, shards=1)`."""

    async def start(users: dict[str, Any] | None = None, **config: Any) -> Daemon:
        dashboard = {"listen": f"127.0.0.1:{free_port()}", **({"users": users} if users else {})}
        daemon = make_daemon(dashboard=dashboard, **config)
        await daemon.start()
        return daemon

    return start


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    """Without users."""
    return await start_daemon()


@pytest.fixture
async def site(daemon: Daemon, page: Page) -> str:
    """The address of the pages of `daemon`, where the browser is signed in."""
    return await sign_in(page, daemon)


@pytest.fixture
async def lot(place: Place) -> Place:
    """The daemon runs with a dashboard, and has an unpaired device `shop`."""
    place.daemon.write_config(dashboard={"listen": f"127.0.0.1:{free_port()}"})
    await place.daemon.start()
    place.add("shop", label="Shop Berlin")
    return place
