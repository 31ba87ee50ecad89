"""Loading a transport in a running worker."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardd.ipc import StoreAccess, TransportSpec
from shardd.transports.base import Surroundings
from shardd.worker.transports import Transports

MODULE = '''
"""A transport whose import and start take long."""
import threading

from shardd.transports.sandbox import SandboxTransport
from tests.unit.worker.test_transports import GO_ON, STARTING

IMPORTED_IN = threading.current_thread()


class Slow(SandboxTransport):
    def __init__(self, settings, surroundings, events):
        super().__init__(settings, surroundings, events)
        self.access, self.held = surroundings.store_access, False

    async def start(self):
        STARTING.set()
        await GO_ON.wait()

    def change_store_access(self, access):
        self.access = access

    def hold_logins(self, *, held):
        self.held = held
'''
STARTING, GO_ON = asyncio.Event(), asyncio.Event()
SETTINGS = {
    "latency_min": 0.0,
    "latency_max": 0.0,
    **dict.fromkeys(("transient_rate", "permanent_rate", "unavailable_rate", "in_doubt_rate", "hang_rate"), 0.0),
    "seed": None,
    "record": False,
}


@pytest.fixture
def transports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transports]:
    (tmp_path / "slow_transport.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    specs = {"slow": TransportSpec("slow_transport:Slow", SETTINGS)}
    yield Transports(specs, Surroundings(), events=None)  # type: ignore[arg-type]  # the sandbox reports none
    del sys.modules["slow_transport"]


async def test_a_library_is_imported_beside_the_event_loop_and_misses_no_change(transports: Transports) -> None:
    loading = asyncio.create_task(transports.load("slow"))
    await STARTING.wait()
    assert sys.modules["slow_transport"].IMPORTED_IN is not threading.main_thread()
    pooled = StoreAccess(pooler="host=/run dbname=pooled")
    transports.change_store_access(pooled)
    transports.hold_logins("slow", held=True)
    GO_ON.set()
    slow = await loading
    assert slow is transports.get("slow") is not None
    assert (slow.access, slow.held) == (pooled, True)  # type: ignore[attr-defined]  # of this module's transport
    await transports.close()
