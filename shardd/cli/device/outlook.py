"""When a device may send next, for `shardd device show`: from the running shardd, else estimated from the database."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from shardd.config import Config
from shardd.control_client import ask_now
from shardd.errors import NotRunningError, SharddError
from shardd.queue.devices import DeviceRow
from shardd.supervisor.scheduling.current_config import device_pace
from shardd.supervisor.scheduling.outlook import DeviceOutlook
from shardd.supervisor.scheduling.outlook_words import Outlook, estimate, next_lines, told
from shardd.visible import visible


def warm_days(config: Config) -> int:
    """How many days of sending must be known of a device."""
    return len(config.pacing.warm_up or ())


def ask_outlook(device: DeviceRow, config: Config) -> Outlook:
    """Ask the running shardd, else estimate."""
    pace = device_pace(config.pacing, device)
    try:
        answer = ask_now(config.control_socket, "GET", f"/devices/{quote(device.id, safe='')}")
    except SharddError as error:
        why = "no shardd runs with this config" if isinstance(error, NotRunningError) else str(error)
        return Outlook(estimate(device, pace), pace, f"{why}; estimated from the database")
    return told(msgspec.convert(answer, DeviceOutlook), device, pace)


def next_words(outlook: Outlook) -> str:
    """`next_lines`, as a terminal may show them."""
    return "\n".join(map(visible, next_lines(outlook)))
