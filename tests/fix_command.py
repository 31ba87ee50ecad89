"""Fixtures: the command line over a fresh database, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Command


@pytest.fixture
def config_file(tmp_path: Path, dsn: str) -> Path:
    """A config of two shards on the test's database."""
    file = tmp_path / "shards.yaml"
    file.write_text(
        f"shards: 2\nstate_dir: state\ndatabase: {{dsn: {json.dumps(dsn)}}}\n"
        "pacing: {gap_min: 5s, gap_max: 15s, daily_limit: 7}\n"
    )
    return file


@pytest.fixture
def shardd(config_file: Path) -> Command:
    """Runs `shardd`, with no daemon behind it."""
    return Command(config_file)
