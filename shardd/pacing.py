"""When a device may send next, and why not now: gaps, limits, quiet hours, warm-up and bursts, across everything that it sends.

The gap lies between the end of one message and the start of the next. Limits count what was sent or may have been (in doubt), by
the device's own calendar and clock. A class of jobs may have its own pace: its limits apply to the same counts, so
`daily_limit: 500` for marketing leaves the rest of the day's thousand to the other classes.

Rate limiters such as pyrate-limiter count within windows: they know neither the device's calendar nor quiet hours or a warm-up,
and shardd must know when the next message may be sent, and why not earlier.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property
from typing import Any, Final

# Spreads load; nothing secret depends on it.
_RNG: Final = random.Random()  # noqa: S311

CLASSES: Final = ("marketing", "service", "reply")
"""The classes of jobs: unsolicited; expected by the recipient; an answer to a message."""
WARM_UP: Final = "its warm-up"
"""Reason for waiting while the warm-up's limit is reached."""
NO_QUIET: Final = "none"
"""How \"no quiet hours\" is written."""
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A part of the day in which nothing is sent; it may span midnight."""

    start: time
    end: time

    @classmethod
    def read(cls, text: str) -> QuietHours | None:
        """The hours of a text such as `21:00-08:00`; None for `none`. Raises ValueError."""
        if text == NO_QUIET:
            return None
        ends = [time.fromisoformat(part) for part in text.split("-")] if _HOURS.fullmatch(text) else []
        if len(set(ends)) < 2:
            raise ValueError(f"{text} is not a range of hours")
        return cls(*ends)

    def __str__(self) -> str:
        """In the format of `read`."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def until(self, local: datetime) -> datetime | None:
        """When the quiet hours end that hold at this moment of the device's clock; None: none hold.

        An end that the clock skips is taken by the clock before the change; one that it shows twice counts each time.
        """
        clock = local.time()
        over_midnight = self.end <= self.start
        since_start, until_end = clock >= self.start, clock < self.end
        quiet = (since_start or until_end) if over_midnight else (since_start and until_end)
        if not quiet:
            return None
        days = 1 if over_midnight and since_start else 0
        return datetime.combine(
            local.date() + timedelta(days=days), self.end.replace(fold=local.fold), tzinfo=local.tzinfo
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """The limits of one class of jobs on one device."""

    gap_min: float = 0.0
    """Seconds."""
    gap_max: float = 0.0
    """Seconds; not below gap_min."""
    hourly_limit: int = 0
    """Messages an hour; 0: none."""
    daily_limit: int = 0
    """Messages a day; 0: none, and no warm-up."""
    quiet: QuietHours | None = None
    burst: int = 0
    """How many messages of the class may follow each other with its own gap; then the device's gap applies. 0: always its own."""


@dataclass(frozen=True)
class DevicePace:
    """All limits of one device."""

    base: Pace = field(default_factory=Pace)
    classes: Mapping[str, Pace] = field(default_factory=dict)
    """By class, for those that differ from the base."""
    zone: tzinfo = UTC
    warm_up: tuple[int, ...] = ()
    """The daily limits of the first days on which the device sends."""

    # Computed once: they are needed for every message.

    @cached_property
    def _paces(self) -> tuple[Pace, ...]:
        return self.base, *self.classes.values()

    @cached_property
    def has_gap(self) -> bool:
        """Whether there is a gap between two messages, so that only one at a time is in flight."""
        # A burst only shortens the device's gap.
        return any(pace.gap_max > 0 for pace in self._paces if not pace.burst)

    @cached_property
    def longest_gap(self) -> float:
        """Seconds; the longest possible gap."""
        return max(pace.gap_max for pace in self._paces)

    @cached_property
    def longest_burst(self) -> int:
        """The most messages that may follow each other faster than the device's gap."""
        return max(pace.burst for pace in self._paces)

    @cached_property
    def limited(self) -> bool:
        """Whether the device's sends must be counted in the database."""
        return self.has_gap or any(pace.hourly_limit > 0 or pace.daily_limit > 0 for pace in self._paces)

    @cached_property
    def free(self) -> bool:
        """Whether nothing ever delays the device."""
        return not self.limited and not any(pace.quiet for pace in self._paces)

    def of(self, job_class: str) -> Pace:
        """The pace of a class."""
        return self.classes.get(job_class, self.base)


def check_class_settings(classes: Mapping[str, Any]) -> None:
    """Check the settings of a device for single classes. Raises ValueError, whose text continues the device's name."""
    for name, settings in classes.items():
        if not isinstance(settings, Mapping):
            raise ValueError(f"has {name[:40]}, which is not an object")  # noqa: TRY004  # its caller takes one kind of error
        for field_name in ("gap_min", "gap_max", "hourly_limit", "daily_limit", "burst"):
            value = settings.get(field_name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
                raise ValueError(f"has {field_name} {str(value)[:40]} for {name[:40]}")
        hours = settings.get("quiet_hours")
        if hours is not None:
            QuietHours.read(hours if isinstance(hours, str) else str(hours)[:40])


@dataclass(slots=True)
class Tally:
    """What a device has sent, as far as its pace needs it. Times are of the caller's monotonic clock unless called local."""

    ended: float = float("-inf")
    """When its last message ended."""
    draw: float = field(default_factory=_RNG.random)
    """Where the gap after it lies between gap_min (0) and gap_max (1)."""
    used: float | None = None
    """Messages of a burst that were used up at `ended`, by all classes together; None: unknown, so all."""
    day: date | None = None
    """The last local day on which it sent."""
    sent: int = 0
    """Messages of that day."""
    hour: int = 0
    hour_sent: int = 0
    """Messages of the last local hour in which it sent."""
    days: int = 0
    """Number of days before `day` on which it sent, counted at least up to the length of the warm-up."""

    def count(self, local: datetime) -> None:
        """A message was sent, or may have been, at this moment of the device's clock."""
        if self.day is None or local.date() > self.day:
            self.days += self.day is not None
            self.day, self.sent, self.hour, self.hour_sent = local.date(), 0, local.hour, 0
        self.sent += 1
        if local.date() == self.day and local.hour > self.hour:
            self.hour, self.hour_sent = local.hour, 0
        self.hour_sent += 1

    def end(self, now: float, pace: DevicePace, job_class: str) -> None:
        """A message of this class ended: the gap begins."""
        used = self.used_at(now, pace) + (pace.of(job_class).burst > 0)
        self.used = min(used, float(pace.longest_burst))
        self.ended = now
        self.draw = _RNG.random()

    def used_at(self, now: float, pace: DevicePace) -> float:
        """Messages of a burst that are used up: one comes back with each gap of the device that passes.

        Counted as used, not as left: what the class with the longest burst has left is not there for the others.
        """
        if pace.base.gap_max <= 0 or self.ended == float("-inf"):
            return 0.0
        used = float(pace.longest_burst) if self.used is None else self.used
        return max(0.0, used - (now - self.ended) / pace.base.gap_max)

    def today(self, local: datetime) -> tuple[int, int, int]:
        """(messages of this local day, of this local hour, days before this one on which it sent)."""
        if self.day is None or local.date() > self.day:
            return 0, 0, self.days + (self.day is not None)
        return self.sent, self.hour_sent if local.hour <= self.hour else 0, self.days


@dataclass(frozen=True, slots=True)
class NextSend:
    """When a message may be sent, and what it waits for until then (None: nothing)."""

    at: float
    why: str | None = None


def gap_ends(pace: DevicePace, job_class: str, tally: Tally) -> float:
    """When the gap before a message of this class ends: its own gap, or the device's once a burst is used up.

    A class with a burst never waits longer than the device's own gap.
    """
    own, base = pace.of(job_class), pace.base
    ends = tally.ended + own.gap_min + tally.draw * (own.gap_max - own.gap_min)
    if not own.burst:
        return ends
    if (missing := 1 + tally.used_at(tally.ended, pace) - own.burst) > 0:
        ends = max(ends, tally.ended + missing * base.gap_max)
    return min(ends, tally.ended + base.gap_min + tally.draw * (base.gap_max - base.gap_min))


def daily_limit(pace: DevicePace, job_class: str, days: int) -> tuple[int, str]:
    """The limit (0: none) and its name, for a device that sent on `days` days before this one."""
    limit = pace.of(job_class).daily_limit
    if limit > 0 and days < len(pace.warm_up) and pace.warm_up[days] < limit:
        return pace.warm_up[days], WARM_UP
    return limit, "its daily limit"


def next_send(
    pace: DevicePace, job_class: str, tally: Tally, *, now: float, ahead: float, in_flight: int = 0
) -> NextSend:
    """The first moment at which a message of this class may be sent.

    `ahead`: POSIX seconds minus the monotonic clock; `in_flight`: messages that are being sent and not counted yet.
    """
    own = pace.of(job_class)
    at = max(now, gap_ends(pace, job_class, tally))
    why = "its gap" if at > now else None
    if not (own.hourly_limit or own.daily_limit or own.quiet):
        return NextSend(at, why)
    # Each reason moves the moment on, and another may hold there: a few times at most, because later hours and days are empty.
    for _ in range(8):
        local = datetime.fromtimestamp(at + ahead, pace.zone)
        end, reason = _held_back(pace, job_class, tally, local, in_flight if at <= now else 0)
        if end is None:
            break
        at, why = max(at, end.timestamp() - ahead), reason
    return NextSend(at, why)


def _held_back(
    pace: DevicePace, job_class: str, tally: Tally, local: datetime, in_flight: int
) -> tuple[datetime | None, str | None]:
    """Until when a message that is due at this local time is held back, and by what."""
    own = pace.of(job_class)
    sent, hour_sent, days = tally.today(local)
    limit, name = daily_limit(pace, job_class, days)
    if 0 < limit <= sent + in_flight:
        return next_midnight(local, pace.zone), name
    if 0 < own.hourly_limit <= hour_sent + in_flight:
        # In absolute time, so that an hour that the clock shows twice is not skipped.
        remaining = timedelta(hours=1) - timedelta(
            minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
        return (local.astimezone(UTC) + remaining).astimezone(pace.zone), "its hourly limit"
    if own.quiet is not None and (end := own.quiet.until(local)) is not None:
        return end, "its quiet hours"
    return None, None


def next_midnight(moment: datetime, zone: tzinfo) -> datetime:
    """When the day after `moment` begins in the zone; both are aware."""
    tomorrow = moment.astimezone(zone).date() + timedelta(days=1)
    return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=zone)
