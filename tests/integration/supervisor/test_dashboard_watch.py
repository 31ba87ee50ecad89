"""The dashboard's process is judged by what the supervisor could hear of it: real processes, real pauses."""

from __future__ import annotations

import asyncio
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from shardd.config import parse_config
from shardd.supervisor.admin import dashboard
from shardd.supervisor.admin.dashboard import Dashboard

HANG: Final = 30.0
"""Seconds; no test waits that long."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "BEAT", 0.1)
    monkeypatch.setattr(dashboard, "SILENT", 1.0)


@pytest.fixture
async def beating() -> AsyncIterator[Process]:
    """A process that gives signs of life."""
    process = await asyncio.create_subprocess_exec("sh", "-c", "while echo; do sleep 0.05; done", stdout=PIPE)
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.usefixtures("quick")
async def test_a_supervisor_that_was_stopped_kills_no_dashboard_and_one_that_listens_does(
    beating: Process, tmp_path: Path
) -> None:
    watched = asyncio.create_task(
        Dashboard(parse_config(f"state_dir: {tmp_path}\n", "test", {}), "", "")._watch(beating)
    )
    await asyncio.sleep(0)
    for _ in range(2):
        time.sleep(1.5 * dashboard.SILENT)  # noqa: ASYNC251  # everything of this process stands still, as when it is stopped
        done, _ = await asyncio.wait([watched], timeout=3 * dashboard.BEAT)
        assert not done
    beating.send_signal(signal.SIGSTOP)
    assert await asyncio.wait_for(watched, HANG) is True
    assert await asyncio.wait_for(beating.wait(), HANG) == -signal.SIGKILL
