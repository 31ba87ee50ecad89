"""What the demonstration shows while it runs: a live picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_EVERY = 1.0
"""Seconds between two lines where there is no terminal."""
BAR = 24
"""Width of a shard's bar, in characters."""


@dataclass(frozen=True)
class Moment:
    """The state of the demonstration at one time."""

    wanted: int
    """Jobs that will be inserted."""
    seconds: float
    """Since the first insert."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Jobs per state, as a producer reads them."""
    node: Mapping[str, Any] = field(default_factory=dict)
    """The supervisor's status (`shardd status --json`)."""

    @property
    def inserted(self) -> int:
        """Jobs that were inserted so far."""
        return sum(self.states.values())

    @property
    def live(self) -> int:
        """Jobs that were inserted and have not come to an end."""
        return sum(self.states.get(state, 0) for state in ("scheduled", "queued", "sending"))


class Picture:
    """Shows one `Moment` after the other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None:
            self._live.stop()

    def show(self, moment: Moment, *, last: bool = False) -> None:
        """Draw; where there is no terminal, write a line when it is time for one."""
        if self._live is not None:
            self._live.update(_draw(moment), refresh=True)
        elif last or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            counts = ", ".join(f"{state} {count}" for state, count in sorted(moment.states.items()))
            self._console.print(f"{moment.seconds:5.1f} s  inserted {moment.inserted} of {moment.wanted}: {counts}")


def _draw(moment: Moment) -> Group:
    return Group(_progress(moment), Text(), _shards(moment), Text(), _footer(moment))


def _progress(moment: Moment) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, count in (("inserted", moment.inserted), ("sent", moment.states.get("sent", 0))):
        bar = ProgressBar(total=moment.wanted, completed=count, width=2 * BAR)
        grid.add_row(name, bar, f"{count} of {moment.wanted}")
    return grid


def _shards(moment: Moment) -> Table:
    shards = moment.node.get("shards", [])
    most = max((shard["sent"] for shard in shards), default=0)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("shard", justify="right")
    table.add_column("state")
    for name in ("pid", "devices", "in flight", "sent"):
        table.add_column(name, justify="right")
    table.add_column("", width=BAR)
    table.add_column("sent/s", justify="right")
    for shard in shards:
        state = Text(shard["state"], style="green" if shard["state"] == "running" else "yellow")
        table.add_row(
            str(shard["shard"]), state, str(shard["pid"] or ""), str(shard["devices"]), str(shard["in_flight"]),
            str(shard["sent"]), ProgressBar(total=max(most, 1), completed=shard["sent"], width=BAR),
            f"{shard['sent_per_second']:.0f}",
        )  # fmt: skip
    return table


def _footer(moment: Moment) -> Text:
    waiting, sending = moment.states.get("queued", 0), moment.states.get("sending", 0)
    rate = moment.node.get("totals", {}).get("sent_per_second", 0.0)
    return Text(f"{moment.seconds:.1f} s · {waiting} queued · {sending} sending · {rate:.0f} sent/s · ^C stops", "dim")
