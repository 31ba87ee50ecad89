"""Text and times of other systems, as UTF-8, Python and PostgreSQL can hold them."""

from __future__ import annotations

from typing import Final

MAX_TIME: Final = 2.0**35
"""POSIX seconds, in the year 3058: Python and PostgreSQL can represent it in every time zone."""


def storable(text: str, most: int) -> str:
    """The text without NUL and halves of surrogate pairs; at most `most` characters."""
    if text.isascii() and "\0" not in text and len(text) <= most:
        return text
    return text[:most].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def possible_time(seconds: float) -> float:
    """POSIX seconds from 0 to MAX_TIME, the closest to these."""
    if 0.0 <= seconds <= MAX_TIME:
        return seconds
    # NaN compares false with everything, so it becomes 0.
    return MAX_TIME if seconds > MAX_TIME else 0.0
