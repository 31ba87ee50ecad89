"""The JSON of a device's row, read so that one row that nobody can read costs that device alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from shardd.json_values import UnreadableError, read_object
from shardd.pacing import CLASSES, check_class_settings

MOST_SETTINGS: Final = 8192
"""Bytes, as the table has it (check_device in 0001_devices.sql)."""


@dataclass(frozen=True, slots=True)
class DeviceJson:
    """`fault`: why the device cannot send, and the fix, with {id} for its name; then both columns count as empty."""

    settings: dict[str, Any]
    classes: dict[str, dict[str, Any]]
    fault: str | None = None


_EMPTY: Final = DeviceJson({}, {})


def read_device_json(settings: str, classes: str) -> DeviceJson:
    """What the columns `settings` and `classes` say; never raises."""
    if settings == classes == "{}":  # as in most rows, of which there are thousands
        return _EMPTY
    try:
        read = read_object(settings, MOST_SETTINGS)
    except UnreadableError as error:
        return DeviceJson(
            {}, {}, f"its settings cannot be read: settings {error}; write them anew: {_SET} --settings JSON"
        )
    try:
        differ = read_object(classes, MOST_SETTINGS)
        check_class_settings(differ)
    except ValueError as error:
        return DeviceJson({}, {}, f"its classes cannot be read: classes {error}; write them anew: {_SET} {_CLEAR}")
    return DeviceJson(read, differ)


_SET: Final = "shardd device set {id}"
_CLEAR: Final = " ".join(f"--clear-class {name}" for name in CLASSES)
