"""The pacing options of `shardd device`: accepted values, and errors that name the fix."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from shardd.cli.device.settings import check_pace, device_options, read_options
from shardd.config import parse_config
from shardd.errors import UsageError
from shardd.queue.devices import NewDevices
from shardd.states import DeviceState

CONFIG = parse_config("", "x.yaml", {"HOME": "/home/x"})


def read(*arguments: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the options say, once they are found to be a pace."""
    found: list[Any] = []

    @click.command()
    @device_options
    def command(**options: Any) -> None:
        found.append(read_options(**options))

    CliRunner().invoke(command, list(arguments), catch_exceptions=False, standalone_mode=False)
    fields, classes = found[0]
    check_pace(CONFIG, NewDevices(ids=["d"], transport="sandbox", state=DeviceState.READY, classes=classes, **fields))
    return fields, classes


def test_only_what_is_named_is_set_and_default_is_nothing_of_its_own() -> None:
    assert read() == ({}, {})
    assert read("--gap=1s..2m") == ({"gap_min": 1.0, "gap_max": 120.0}, {})
    assert read("--gap=default") == ({"gap_min": None, "gap_max": None}, {})
    assert read("--gap-min=default", "--gap-max=20s") == ({"gap_min": None, "gap_max": 20.0}, {})
    assert read("--quiet-hours=none", "--timezone=default", "--daily-limit=0", "--cold") == (
        {"quiet_hours": "none", "timezone": None, "daily_limit": 0, "warm": False},
        {},
    )


def test_settings_of_a_class_add_up() -> None:
    assert read("--class=reply:gap=1s..3s,burst=5", "--class", "reply:burst=6, hourly-limit=default") == (
        {},
        {"reply": {"gap_min": 1.0, "gap_max": 3.0, "burst": 6, "hourly_limit": None}},
    )
    assert read("--class=service:quiet_hours=21:00-08:00,gap=default") == (
        {},
        {"service": {"quiet_hours": "21:00-08:00", "gap_min": None, "gap_max": None}},
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--gap=20s..10s"], "the shortest gap, 20 s, is longer than the longest, 10 s"),
        (["--gap-max=1s"], "the shortest gap, 5 s, is longer than the longest, 1 s"),
        (["--gap=1s..2s", "--gap-min=1s"], "--gap has both ends already"),
        (["--gap=5s"], "--gap: 5s is not a range; write both ends"),
        (["--gap=1s..2d"], "--gap: 2d is too large; write a value from 0 to 1d"),
        (["--daily-limit=1e3"], "--daily-limit: 1e3 is not a whole number in plain digits; write 1000"),
        (["--quiet-hours=9-5"], "--quiet-hours: 9-5 is not a range of hours; write two times such as 21:00-08:00, or none"),
        (["--timezone=Jakarta"], "--timezone: Jakarta is not a known time zone; write Asia/Jakarta"),
        (["--class=replies:burst=1"], "--class: replies:burst=1 begins with none of marketing, service, reply"),
        (["--class=reply"], "--class: reply begins with none of marketing, service, reply; write CLASS:NAME=VALUE"),
        (["--class=reply:pause=1s"], "--class: pause=1s is not NAME=VALUE; the names are gap, gap_min,"),
        (["--class=reply:"], "--class: reply: is not NAME=VALUE"),
        (["--class=reply:burst=many"], "--class reply:burst: many is not a whole number"),
        (["--class=reply:gap_min=2"], "--class reply:gap_min: 2 has no unit; write 2s"),
        (["--class=service:gap_max=2s"], "for service the shortest gap, 5 s, is longer than the longest, 2 s: write --class"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_fix(arguments: list[str], error: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*arguments)
    assert error in str(caught.value)
