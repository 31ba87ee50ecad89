"""The section `pacing`, and the pace of a device: what its own settings and the config's come to.

For each setting the first one that is given counts: the device's for the class, the config's for the class, the device's, the
config's. One exception protects a careful device: where it has a limit or a gap of its own, the config's value for a class can
only tighten it. A burst is not bound by that: it speeds up a few messages, never all of them.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol, TypeVar

from shardd.config.fields import Section, section, setting
from shardd.config.values import Seconds, Whole
from shardd.config.values.words import Hours, Steps, TimeZone
from shardd.pacing import CLASSES, NO_QUIET, DevicePace, Pace, QuietHours

# The command line reads a device's own settings with the same readers.
GAP: Final = Seconds("0", "1d")
LIMIT: Final = Whole(0, 1_000_000)
BURST: Final = Whole(0, 1000)
_AS_ABOVE: Final = "null: as above."

Value = TypeVar("Value")


class ClassPaceConfig(Section, reload="live"):
    """What differs for one class of jobs."""

    gap_min: Annotated[float | None, GAP] = setting(None, f"Shortest gap before a message of this class. {_AS_ABOVE}")
    gap_max: Annotated[float | None, GAP] = setting(None, f"Longest gap. {_AS_ABOVE}")
    burst: Annotated[int, BURST] = setting(
        "0",
        "How many messages of this class may follow each other with these gaps before the device's own gaps apply; each of "
        "those that passes allows one more. 0: these gaps always apply.",
    )
    hourly_limit: Annotated[int | None, LIMIT] = setting(
        None,
        "The class waits once the device has sent this many messages of any class in the hour. A number below the one above "
        f"reserves the difference for the other classes. {_AS_ABOVE}",
    )
    daily_limit: Annotated[int | None, LIMIT] = setting(
        None, f"The same per day. 0: no limit, and no warm-up. {_AS_ABOVE}"
    )
    quiet_hours: Hours | None = setting(None, f"Hours in which the class waits, or none. {_AS_ABOVE}")


class ReplyPaceConfig(ClassPaceConfig, reload="live"):
    """What differs for replies."""

    gap_min: Annotated[float | None, GAP] = setting(
        "1s", f"Shortest gap before a reply: someone is waiting for it. {_AS_ABOVE}"
    )
    gap_max: Annotated[float | None, GAP] = setting("3s", f"Longest gap. {_AS_ABOVE}")
    burst: Annotated[int, BURST] = setting(
        "3",
        "How many replies may follow each other this fast, as a person's would, before the device's own gaps apply; each "
        "of those that passes allows one more. 0: the short gaps always apply.",
    )
    quiet_hours: Hours | None = setting(
        "none", f"Hours in which replies wait, or none, because whoever writes is awake. {_AS_ABOVE}"
    )


class ClassesConfig(Section):
    """The classes of jobs."""

    marketing: ClassPaceConfig = section(
        ClassPaceConfig, "Messages that no one is waiting for; the class of a job that names none."
    )
    service: ClassPaceConfig = section(
        ClassPaceConfig, "Messages that someone is waiting for: codes, receipts, appointments."
    )
    reply: ReplyPaceConfig = section(ReplyPaceConfig, "Answers to a message.")


class PacingConfig(Section, reload="live"):
    """How fast each device sends; a device's own values come first."""

    gap_min: Annotated[float, GAP] = setting(
        "5s",
        "Shortest gap between the end of one message of a device and the start of the next; each gap is random between gap_min "
        "and gap_max.",
    )
    gap_max: Annotated[float, GAP] = setting(
        "15s", "Longest gap. The shorter the gaps, the more likely WhatsApp bans the number."
    )
    hourly_limit: Annotated[int, LIMIT] = setting(
        "200",
        "Messages per device and hour of its clock; the others wait for the next hour. Without it, the gaps would let a whole "
        "day's messages leave within three hours, as no person writes. 0: no limit.",
    )
    daily_limit: Annotated[int, LIMIT] = setting(
        "1000", "Messages per device and day; the others wait for midnight. 0: no limit, and no warm-up."
    )
    quiet_hours: Hours | None = setting(
        None,
        "Hours of the device's clock in which it starts no message, such as 21:00-08:00. null: none, because only you know "
        "when your recipients sleep.",
    )
    timezone: TimeZone = setting(
        "UTC", "Clock and calendar for hourly_limit, daily_limit and quiet_hours, such as Asia/Jakarta."
    )
    warm_up: Steps | None = setting(
        "50, 100, 200, 400, 700",
        "Daily limits of a device's first days of sending, while they are below its daily limit: a new number that sends "
        "as much as an old one is soon banned. Not for devices added with --warm. null: no warm-up.",
    )
    classes: ClassesConfig = section(
        ClassesConfig,
        "What differs for a class of jobs. A device can override everything here, for all its jobs or for one class "
        "(shardd device set). For each setting the first one that is given counts: the device's for the class, the one "
        "below, the device's, the one above. But where a device has a limit or a gap of its own, the values below can only "
        "tighten it, except for bursts.",
    )

    @property
    def zone(self) -> dt.tzinfo:
        """The time zone itself."""
        return dt.UTC if self.timezone == "UTC" else zoneinfo.ZoneInfo(self.timezone)


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
        """Messages; 0: no limit."""

    @property
    def daily_limit(self) -> int | None:
        """Messages; 0: no limit."""

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
    """The pace of a device. A time zone that this machine does not know is replaced by the config's."""
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


def known_zone(name: str) -> dt.tzinfo | None:
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
            # 0 is no limit: then the other of the two counts.
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
