"""When a device may send next: the gap between its messages and its daily limit.

The gap is counted from the end of one message to the start of the next, across everything that the device sends. The
daily limit counts what was sent, and what may have been sent (in doubt), on a calendar day of the configured time zone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

# Spreads load; nothing secret depends on it.
_RNG: Final = random.Random()  # noqa: S311


@dataclass(frozen=True, slots=True)
class Pace:
    """The limits of one device."""

    gap_min: float = 0.0
    """Seconds."""
    gap_max: float = 0.0
    """Seconds; not below gap_min."""
    daily_limit: int = 0
    """Messages a day; 0: none."""

    @property
    def limited(self) -> bool:
        """Whether the device's sends must be counted in the database at all."""
        return self.gap_max > 0 or self.daily_limit > 0

    def gap(self, rng: random.Random | None = None) -> float:
        """A gap in seconds, drawn from gap_min … gap_max."""
        if self.gap_max <= 0:
            return 0.0
        return (rng or _RNG).uniform(self.gap_min, self.gap_max)

    def spent(self, sent_today: int) -> bool:
        """Whether nothing more may be sent today."""
        return 0 < self.daily_limit <= sent_today


def day_of(moment: datetime, zone: tzinfo) -> date:
    """The calendar day of an aware moment in a zone."""
    return moment.astimezone(zone).date()


def next_midnight(moment: datetime, zone: tzinfo) -> datetime:
    """When the day after `moment` begins in the zone (an aware datetime)."""
    tomorrow = day_of(moment, zone) + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone)
