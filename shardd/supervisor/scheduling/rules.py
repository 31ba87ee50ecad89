"""What the config says about devices and jobs, in the words of those who ask."""

from __future__ import annotations

from typing import Final

from shardd.config import Config
from shardd.config.pacing import device_pace, known_zone
from shardd.logs import get_logger
from shardd.pacing import DevicePace
from shardd.queue.records import Device
from shardd.queue.settle import JobBackoff

log = get_logger(__name__)

MOST_PACES: Final = 10_000
"""Different paces that are remembered."""


class Rules:
    """The config's answers; `config` is replaced by a reload."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._job_backoff = _job_backoff(config)
        self._told_zones: set[str] = set()
        # Every look asks for each device that has sent meanwhile; most of a fleet have the same settings.
        self._paces: dict[tuple[object, ...], DevicePace] = {}

    @property
    def config(self) -> Config:
        """The one that holds now."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self._config = config
        self._job_backoff = _job_backoff(config)
        self._paces.clear()

    @property
    def job_backoff(self) -> JobBackoff:
        """Of failed jobs."""
        return self._job_backoff

    @property
    def warm_days(self) -> int:
        """How many days a warm-up takes."""
        return len(self._config.pacing.warm_up or ())

    def pace_of(self, device: Device) -> DevicePace:
        """A device's limits: its own and the config's."""
        settings = (
            *(device.gap_min, device.gap_max, device.hourly_limit, device.daily_limit, device.quiet_hours),
            *(device.timezone, device.warm, repr(device.classes)),
        )
        pace = self._paces.get(settings)
        if pace is None:
            if len(self._paces) >= MOST_PACES:
                self._paces.clear()
            pace = self._paces[settings] = self._make_pace(device)
        return pace

    def _make_pace(self, device: Device) -> DevicePace:
        zone = device.timezone
        if zone and zone not in self._told_zones and known_zone(zone) is None:
            self._told_zones.add(zone)
            log.warning(
                "this machine does not know the time zone %s; its devices keep to pacing.timezone: update tzdata",
                zone,
                action="device",
                device=device.id,
            )
        return device_pace(self._config.pacing, device)

    def in_flight_of(self, transport: str) -> int:
        """How many jobs a device of this transport may have in flight."""
        return self._config.transports.in_flight_of(transport)


def _job_backoff(config: Config) -> JobBackoff:
    return JobBackoff(first=config.queue.backoff.first, cap=config.queue.backoff.cap)
