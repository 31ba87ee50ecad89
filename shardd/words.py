"""Numbers, durations, moments and JSON values in words, the same everywhere. No I/O."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

Facts = list[tuple[str, str | None]]
"""Names and values of one thing; without a value, there is nothing to say."""

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def sentences(*parts: str | None) -> str:
    """Each part that there is with its question mark, or a full stop."""
    return " ".join(part if part.endswith(("?", "!")) else f"{part.rstrip('.')}." for part in parts if part)


def span(seconds: float) -> str:
    """A duration in at most two units: `12ms`, `0.9s`, `42s`, `3m 5s`, `2h 10m`, `5d 3h`."""
    if seconds < 0.0005:
        return "0s"
    if seconds < 0.1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for (size, unit), (small, small_unit) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{unit} {rest}{small_unit}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, or how soon, in one unit; empty for None."""
    if moment is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    # The database's clock may be a little ahead of ours.
    if abs(seconds) < 1:
        return "now"
    whole = next(f"{abs(seconds) // size:.0f}{unit}" for size, unit in _UNITS if abs(seconds) >= size)
    return f"{whole} ago" if seconds > 0 else f"in {whole}"


def moment_text(moment: datetime | None) -> str:
    """A moment, absolute and relative; empty for None."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({ago(moment)})"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 job`, `6,000 jobs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def json_text(value: Any, indent: int | None = None) -> str:
    """A value of JSON as its text; empty for None."""
    return "" if value is None else json.dumps(value, ensure_ascii=False, indent=indent)
