"""The pacing rules of each device follow changes of the config and of the device at once."""

from __future__ import annotations

from dataclasses import replace

from shardd.config import parse_config
from shardd.pacing import Pace
from shardd.supervisor.scheduling.current_config import CurrentConfig
from tests.support.scheduler_by_hand import device

HOME = {"HOME": "/home/x"}


def current_of(text: str) -> CurrentConfig:
    return CurrentConfig(parse_config(text, "x.yaml", HOME))


def test_every_setting_of_a_device_makes_a_difference() -> None:
    current = current_of("")
    plain = device("a")
    paces = [current.pace_of(plain)]
    for change in (
        {"gap_min": 7.0},
        {"gap_max": 70.0},
        {"hourly_limit": 7},
        {"daily_limit": 7},
        {"quiet_hours": "21:00-08:00"},
        {"timezone": "Asia/Jakarta"},
        {"warm": True},
        {"classes": {"reply": {"burst": 7}}},
    ):
        paces.append(current.pace_of(replace(plain, **change)))  # type: ignore[arg-type]  # the values are of many types
        assert current.pace_of(plain) == paces[0]
    assert all(one not in paces[:number] for number, one in enumerate(paces))


def test_a_reload_counts_at_once() -> None:
    current = current_of("")
    assert current.pace_of(device("a")).base == Pace(5, 15, 200, 1000)
    assert current.warm_days == 5
    current.set_config(parse_config("pacing: {gap_max: 20s, warm_up: null}", "x.yaml", HOME))
    assert current.pace_of(device("a")).base == Pace(5, 20, 200, 1000)
    assert current.warm_days == 0


def test_a_time_zone_that_this_machine_does_not_know_stops_nobody() -> None:
    current = current_of("pacing: {timezone: Asia/Jakarta}")
    assert current.pace_of(device("a", timezone="Mars/Base")) == current.pace_of(device("b"))
