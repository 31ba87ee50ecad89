"""The demonstration's picture: whole numbers and words, also in a narrow terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from demo_picture import Moment, _draw  # found only now

SHARD = {"state": "backoff", "pid": 1234567, "ready": 375, "in_flight": 375, "sent": 12345}
MOMENT = Moment(
    100_000,
    59.5,
    states={"sent": 98_765, "queued": 1_000, "sending": 235},
    node={"shards": [{**SHARD, "shard": number} for number in range(8)]},
)


@pytest.mark.parametrize("columns", [60, 100])
def test_nothing_is_cut(columns: int) -> None:
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(_draw(MOMENT, Moment(100_000, 57.5, node=MOMENT.node), columns))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines), lines
    rows = [line.split() for line in lines if "backoff" in line]
    assert [row[0] for row in rows] == [str(number) for number in range(8)]
    assert all("12345" in row for row in rows)
    assert lines[0].split()[0] == "inserted"
    assert "98765 of 100000" in lines[1]
