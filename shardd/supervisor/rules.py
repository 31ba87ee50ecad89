"""What the config says about devices and jobs, in the words of those who ask."""

from __future__ import annotations

from shardd.config import Config
from shardd.config.device_pace import device_pace, known_zone
from shardd.logs import get_logger
from shardd.pacing import DevicePace
from shardd.queue.devices import Device
from shardd.queue.settle import JobBackoff

log = get_logger(__name__)


class Rules:
    """The config's answers; `config` is replaced by a reload."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._told_zones: set[str] = set()

    @property
    def job_backoff(self) -> JobBackoff:
        """Of failed jobs."""
        return JobBackoff(first=self.config.queue.backoff.first, cap=self.config.queue.backoff.cap)

    @property
    def warm_days(self) -> int:
        """How many days a warm-up takes."""
        return len(self.config.pacing.warm_up or ())

    def pace_of(self, device: Device) -> DevicePace:
        """A device's limits: its own and the config's."""
        zone = device.timezone
        if zone and zone not in self._told_zones and known_zone(zone) is None:
            self._told_zones.add(zone)
            log.warning(
                "this machine does not know the time zone %s; its devices keep to pacing.timezone: update tzdata",
                zone,
                action="device",
                device=device.id,
            )
        return device_pace(self.config.pacing, device)

    def room_of(self, transport: str) -> int:
        """How many jobs a device of this transport may have in hand."""
        return self.config.transports.sandbox.in_hand if transport == "sandbox" else 1
