"""Progress of the demonstration: a live view on a terminal, otherwise a line per second."""

from __future__ import annotations

import io
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_EVERY = 1.0
"""Seconds between two lines without a terminal."""
BAR = 24
"""Width of a shard's bar, in characters."""
NARROW_BAR = 14
WIDE = 90
"""Width of a terminal from which on bars are long and all columns are shown."""
RATE_WINDOW = 2.0
"""Seconds over which rates are averaged."""


@dataclass(frozen=True)
class Moment:
    """The state of the demonstration at one moment."""

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
        """Jobs inserted so far."""
        return sum(self.states.values())

    @property
    def shards(self) -> Sequence[Mapping[str, Any]]:
        """The status of each shard."""
        shards: Sequence[Mapping[str, Any]] = self.node.get("shards", ())
        return shards

    @property
    def live(self) -> int:
        """Jobs that are not finished."""
        return sum(self.states.get(state, 0) for state in ("scheduled", "queued", "sending"))


class Picture:
    """Shows one `Moment` after another."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line = 0.0
        self._lately: deque[Moment] = deque()

    def __enter__(self) -> Self:
        """Start the live view."""
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
        """Update the view; without a terminal, print a line if one is due."""
        self._lately.append(moment)
        while self._lately[0].seconds < moment.seconds - RATE_WINDOW:
            self._lately.popleft()
        if self._live is not None:
            self._live.update(_draw(moment, self._lately[0], self._console.width), refresh=True)
        elif last or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            counts = ", ".join(f"{state} {count}" for state, count in sorted(moment.states.items()))
            self._console.print(f"{moment.seconds:5.1f} s  inserted {moment.inserted} of {moment.wanted}: {counts}")

    def save(self, file: Path) -> None:
        """Write what a wide terminal shows now as an SVG, which loads nothing from elsewhere."""
        console = Console(record=True, file=io.StringIO(), width=WIDE, force_terminal=True, color_system="truecolor")
        console.print(_draw(self._lately[-1], self._lately[0], WIDE))
        drawn = console.export_svg(title="./scripts/demo")
        # Fonts, and a comment with an address.
        file.write_text(re.sub(r"(@font-face \{.*?\}|<!--.*?-->)\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")


def _draw(moment: Moment, before: Moment, width: int) -> Group:
    bar = BAR if width >= WIDE else NARROW_BAR
    return Group(_progress(moment, 2 * bar), Text(), _shards(moment, before, bar), Text(), _footer(moment, before))


def _progress(moment: Moment, width: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, count in (("inserted", moment.inserted), ("sent", moment.states.get("sent", 0))):
        bar = ProgressBar(total=moment.wanted, completed=count, width=width)
        grid.add_row(name, bar, f"{count} of {moment.wanted}")
    return grid


def _shards(moment: Moment, before: Moment, width: int) -> Table:
    """Each shard with a bar of this width; beside a narrow one, without its process and its devices."""
    wide = width >= BAR
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), header_style="dim")
    table.add_column("shard", justify="right")
    table.add_column("state")
    for name in ("pid", "devices", "in flight", "sent") if wide else ("in flight", "sent"):
        table.add_column(name, justify="right")
    table.add_column("", width=width)
    table.add_column("sent/s", justify="right")
    devices = sum(shard["ready"] for shard in moment.shards)
    for shard, earlier in zip(moment.shards, before.shards, strict=True):
        state = Text(shard["state"], style="green" if shard["state"] == "running" else "yellow")
        share = moment.wanted * shard["ready"] / max(devices, 1)
        table.add_row(
            str(shard["shard"]), state, *((str(shard["pid"] or ""), str(shard["ready"])) if wide else ()),
            str(shard["in_flight"]),
            str(shard["sent"]), ProgressBar(total=max(share, 1), completed=shard["sent"], width=width),
            f"{_rate(shard['sent'] - earlier['sent'], moment, before):.0f}",
        )  # fmt: skip
    return table


def _footer(moment: Moment, before: Moment) -> Text:
    sent, waiting, sending = (moment.states.get(state, 0) for state in ("sent", "queued", "sending"))
    rate = _rate(sent - before.states.get("sent", 0), moment, before)
    return Text(f"{moment.seconds:.1f} s · {waiting} queued · {sending} sending · {rate:.0f} sent/s · ^C stops", "dim")


def _rate(count: int, moment: Moment, before: Moment) -> float:
    seconds = moment.seconds - before.seconds
    return count / seconds if seconds > 0 else 0.0
