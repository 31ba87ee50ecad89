"""The config that is in effect, with its limits and backoffs in the types that the scheduler and the router use.

For each setting of a device's pace the first one that is given counts: the device's for the class, the config's for the class,
the device's, the config's. One exception protects a careful device: where it has a limit or a gap of its own, the config's value
for a class can only tighten it. A burst is not bound by that: it speeds up a few messages, never all of them.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Final, TypeVar

from shardd.config import ClassPaceConfig, Config, PacingConfig
from shardd.logs import get_logger
from shardd.pacing import CLASSES, NO_QUIET, DevicePace, Pace, QuietHours
from shardd.queue.records import Device
from shardd.queue.settle import JobBackoff

log = get_logger(__name__)

Value = TypeVar("Value")

MOST_PACES: Final = 10_000
"""Different paces that are cached."""


class CurrentConfig:
    """The config as of the last reload (`set_config`), and what it means for each device and transport."""

    def __init__(self, config: Config) -> None:
        self._unknown_zones: set[str] = set()
        # Each reading of the devices asks for all that have sent meanwhile; most of a fleet have the same settings.
        self._paces: dict[tuple[object, ...], DevicePace] = {}
        self.set_config(config)

    def set_config(self, config: Config) -> None:
        """Use another config from now on."""
        self.config = config
        self.job_backoff = JobBackoff(first=config.queue.backoff.first, cap=config.queue.backoff.cap)
        self._paces.clear()

    @property
    def warm_days(self) -> int:
        """How many days a warm-up takes."""
        return len(self.config.pacing.warm_up or ())

    def in_flight_of(self, transport: str) -> int:
        """How many jobs a device of this transport may have in flight."""
        return self.config.transports.in_flight_of(transport)

    def pace_of(self, device: Device) -> DevicePace:
        """A device's limits: its own, combined with the config's."""
        settings = (
            *(device.gap_min, device.gap_max, device.hourly_limit, device.daily_limit, device.quiet_hours),
            *(device.timezone, device.warm, repr(device.classes)),
        )
        pace = self._paces.get(settings)
        if pace is None:
            if len(self._paces) >= MOST_PACES:
                self._paces.clear()
            pace = self._paces[settings] = device_pace(self.config.pacing, device)
            self._report_unknown_zone(device)
        return pace

    def _report_unknown_zone(self, device: Device) -> None:
        zone = device.timezone
        if zone and zone not in self._unknown_zones and known_zone(zone) is None:
            self._unknown_zones.add(zone)
            log.warning(
                "this machine does not know the time zone %s; its devices use pacing.timezone: update tzdata",
                zone,
                action="device",
                device=device.id,
            )


def device_pace(pacing: PacingConfig, own: Device) -> DevicePace:
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


def _class_pace(base: Pace, own: Device, name: str, configured: ClassPaceConfig, pacing: PacingConfig) -> Pace:
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
