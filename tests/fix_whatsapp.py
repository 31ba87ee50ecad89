"""Pytest fixtures for tests against the project's own WhatsApp server.

Use them with ``pytest_plugins = ["tests.fix_whatsapp"]`` in the top conftest, or import them into a conftest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.whatsapp_server.launch import ServerProcess, launch


@pytest.fixture(scope="session")
def whatsapp_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server process for the whole run; most tests want ``whatsapp``."""
    server = launch(tmp_path_factory.mktemp("whatsapp"))
    yield server
    server.stop()


@pytest.fixture
def whatsapp(whatsapp_process: ServerProcess) -> Iterator[ServerProcess]:
    """The server, as new but for pairings; the test fails if the server itself failed meanwhile."""
    whatsapp_process.control.cut()
    whatsapp_process.control.reset()
    yield whatsapp_process
    defects = whatsapp_process.control.events("server_error")
    assert not defects, f"the WhatsApp test server failed, see its log: {defects}"
