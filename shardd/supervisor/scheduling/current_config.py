"""The config that is in effect, with its limits and backoffs in the types that the scheduler and the router use."""

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
