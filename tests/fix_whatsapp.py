"""Pytest fixtures for tests against the project's own WhatsApp server.

Load them with ``pytest_plugins = ["tests.fix_whatsapp"]``, in the top conftest or in a test module.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.whatsapp_server.client_process import ClientProcess
from tests.whatsapp_server.launch import ServerProcess, launch
from tests.whatsapp_server.plain_device import PlainDevice

_FIRST_NUMBER = 628110000000
_numbers = itertools.count(_FIRST_NUMBER)


@pytest.fixture(scope="session")
def whatsapp_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server process for the whole run; most tests want ``whatsapp``."""
    server = launch(tmp_path_factory.mktemp("whatsapp"))
    yield server
    server.stop()


@pytest.fixture
def whatsapp(whatsapp_process: ServerProcess) -> Iterator[ServerProcess]:
    """The server, as new; the test fails if the server itself failed meanwhile."""
    whatsapp_process.control.start_over()
    yield whatsapp_process
    defects = whatsapp_process.control.events("server_error") + whatsapp_process.control.events("protocol_error")
    assert not defects, f"the WhatsApp test server failed, see its log: {defects}"


@pytest.fixture
def fresh_number() -> str:
    """A phone number that no other test of this run uses."""
    return str(next(_numbers))


@pytest_asyncio.fixture
async def plain_process(whatsapp: ServerProcess, tmp_path: Path) -> AsyncIterator[ClientProcess]:
    """A process with plain neonize, without any client yet."""
    process = await ClientProcess.start(whatsapp, tmp_path / "neonize.log")
    yield process
    await process.stop()


@pytest_asyncio.fixture
async def plain_device(
    whatsapp: ServerProcess, plain_process: ClientProcess, tmp_path: Path, fresh_number: str
) -> PlainDevice:
    """A device paired by QR and online, in plain neonize."""
    store = str(tmp_path / "store.sqlite")
    device = PlainDevice(whatsapp, plain_process, fresh_number, f"{fresh_number}:1", store)
    await plain_process.call("open", client="device", store=store, proxy=whatsapp.proxy_url(device.name))
    code = await device.event("qr")
    await device.control.scan(code.details["code"], fresh_number)
    await device.event("Connected")
    await device.control.wait_events("prekeys_uploaded", device=device.name)
    return device
