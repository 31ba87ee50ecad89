"""Fixtures: the HTTP platforms on the loopback interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.platform_device import PlatformDevice, make_device
from tests.platform_server.server import PlatformServer

MakeDevice = Callable[..., Awaitable[PlatformDevice]]


@pytest.fixture
async def platforms() -> AsyncIterator[PlatformServer]:
    """Wablas, Whacenter and the Cloud API; the test fails if anything came in a shape that none of them has."""
    server = PlatformServer()
    await server.start()
    yield server
    await server.stop()
    assert not server.faults, f"no platform understands this: {server.faults}"


@pytest.fixture
async def make_platform_device(platforms: PlatformServer) -> AsyncIterator[MakeDevice]:
    """Makes devices at the test's platforms, or at another base."""
    made: list[PlatformDevice] = []

    async def make(transport: str, base: str | None = None, **how: Any) -> PlatformDevice:
        made.append(await make_device(transport, base or platforms.base, **how))
        return made[-1]

    yield make
    for device in made:
        await device.transport.close()
