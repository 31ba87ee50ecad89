"""Loading a transport in a running worker."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from shardd.ipc import TransportSpec
from shardd.transports.base import Surroundings
from shardd.worker.transports import Transports

MODULE = '''
"""A transport whose import takes long."""
import threading

from shardd.transports.sandbox import SandboxTransport as Slow

IMPORTED_IN = threading.current_thread()
'''


async def test_a_library_is_imported_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_transport.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {
        "latency_min": 0.0,
        "latency_max": 0.0,
        **dict.fromkeys(("transient_rate", "permanent_rate", "unavailable_rate", "in_doubt_rate", "hang_rate"), 0.0),
        "seed": None,
        "record": False,
    }
    specs = {"slow": TransportSpec("slow_transport:Slow", settings)}
    transports = Transports(specs, Surroundings(), events=None)  # type: ignore[arg-type]  # the sandbox reports none
    try:
        assert await transports.load("slow") is transports.get("slow") is not None
        assert sys.modules["slow_transport"].IMPORTED_IN is not threading.main_thread()
    finally:
        await transports.close()
        del sys.modules["slow_transport"]
