"""The old system's times. What a time without a time zone means, only its owner knows: hours are never added or taken away."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

NO_DATES: Final = ("0000-00-00", "0001-01-01")
"""What MySQL and Go store for no date."""
YEARS: Final = range(1971, 2100)
"""Those that a job's times may lie in."""


def read_moment(text: str | None, zone: ZoneInfo) -> datetime | None:
    """The moment that a column holds; `zone` is that of a time that names none. Raises ValueError for what is no such time."""
    if text is None or not text.strip() or text.startswith(NO_DATES):
        return None
    moment = datetime.fromisoformat(text.strip())
    if moment.year not in YEARS:
        raise ValueError(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
