"""Fixtures: a daemon over a fresh database, and a producer beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, Producer


@pytest.fixture
async def make_daemon(tmp_path_factory: pytest.TempPathFactory, dsn: str) -> AsyncIterator[Callable[..., Daemon]]:
    """Makes daemons on the test's database; they are ended with the test."""
    daemons: list[Daemon] = []

    def make(state_dir: Path | None = None, **config: Any) -> Daemon:
        daemons.append(Daemon(state_dir or tmp_path_factory.mktemp("node"), dsn, **config))
        return daemons[-1]

    yield make
    for daemon in daemons:
        await daemon.close()


@pytest.fixture
def producer(dsn: str) -> Producer:
    return Producer(dsn)
