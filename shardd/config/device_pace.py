"""What a device's own settings and the config's make together: its pace.

Of each setting counts the first that is given: the device's for the class, the config's for the class, the device's, the
config's. One exception keeps a careful device careful: a limit or a pause that it is given itself is only tightened by the
config's for a class. A burst is free of it: it hastens a few messages, never all of them.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Protocol, TypeVar

from shardd.config.pacing import ClassPaceConfig, PacingConfig
from shardd.pacing import CLASSES, NO_QUIET, DevicePace, Pace, QuietHours

Value = TypeVar("Value")


class OwnPace(Protocol):
    """A device's own settings; None: as configured."""

    @property
    def gap_min(self) -> float | None:
        """Seconds."""

    @property
    def gap_max(self) -> float | None:
        """Seconds."""

    @property
    def hourly_limit(self) -> int | None:
        """Messages; 0: none."""

    @property
    def daily_limit(self) -> int | None:
        """Messages; 0: none."""

    @property
    def quiet_hours(self) -> str | None:
        """As `QuietHours.read` takes them."""

    @property
    def timezone(self) -> str | None:
        """A name of the tz database."""

    @property
    def warm(self) -> bool:
        """Whether it needs no warm-up."""

    @property
    def classes(self) -> Mapping[str, Mapping[str, Any]]:
        """What differs for classes of jobs: fields of `Pace`, quiet_hours as text."""


def device_pace(pacing: PacingConfig, own: OwnPace) -> DevicePace:
    """The pace of a device. A time zone that this machine does not know is the config's."""
    gap_min, gap_max = _first(own.gap_min, pacing.gap_min), _first(own.gap_max, pacing.gap_max)
    base = Pace(
        gap_min=gap_min,
        gap_max=max(gap_min, gap_max),
        hourly_limit=_first(own.hourly_limit, pacing.hourly_limit),
        daily_limit=_first(own.daily_limit, pacing.daily_limit),
        quiet=QuietHours.read(_first(own.quiet_hours, pacing.quiet_hours, NO_QUIET)),
    )
    paces = {name: _class_pace(base, own, name, getattr(pacing.classes, name), pacing) for name in CLASSES}
    return DevicePace(
        base=base,
        classes={name: pace for name, pace in paces.items() if pace != base},
        zone=(known_zone(own.timezone) if own.timezone else None) or pacing.zone,
        warm_up=() if own.warm else pacing.warm_up or (),
    )


def known_zone(name: str) -> tzinfo | None:
    """The time zone, if this machine knows it: PostgreSQL has a list of its own."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def _class_pace(base: Pace, own: OwnPace, name: str, configured: ClassPaceConfig, pacing: PacingConfig) -> Pace:
    mine = own.classes.get(name, {})
    burst = _first(mine.get("burst"), configured.burst)
    gaps = []
    for field in ("gap_min", "gap_max"):
        gap = getattr(configured, field)
        if gap is not None and not burst:
            gap = max(gap, getattr(own, field) or 0.0)
        gap = _first(mine.get(field), gap, getattr(base, field))
        gaps.append(min(gap, getattr(base, field)) if burst else gap)
    low, high = gaps[0], max(gaps)
    limits = {}
    for field in ("hourly_limit", "daily_limit"):
        limit = getattr(configured, field)
        if limit is not None:
            # 0 is no limit: what is left of the two then counts.
            limit = min(filter(None, (limit, getattr(own, field))), default=0)
        limits[field] = _first(mine.get(field), limit, getattr(base, field))
    hours = _first(mine.get("quiet_hours"), configured.quiet_hours, own.quiet_hours, pacing.quiet_hours, NO_QUIET)
    return Pace(
        gap_min=low,
        gap_max=high,
        quiet=QuietHours.read(hours),
        burst=0 if (low, high) == (base.gap_min, base.gap_max) else burst,
        **limits,
    )


def _first(*values: Value | None) -> Value:
    """The first that is given; the last one always is."""
    return next(value for value in values if value is not None)
