"""The precedence of a pacing setting: the device's class, the config's class, the device, the config."""

from __future__ import annotations

from datetime import UTC, time
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from shardd.config import ClassesConfig, ClassPaceConfig, PacingConfig
from shardd.pacing import CLASSES, Pace, QuietHours
from shardd.queue.records import Device
from shardd.supervisor.scheduling.current_config import device_pace
from tests.support.scheduler_by_hand import device

NIGHT = QuietHours(time(21), time(8))
NOON = QuietHours(time(12), time(13))


def config(marketing: dict[str, Any] | None = None, **fields: Any) -> PacingConfig:
    return PacingConfig(classes=ClassesConfig(marketing=ClassPaceConfig(**marketing or {})), **fields)


def test_a_device_without_settings_has_the_configs() -> None:
    pace = device_pace(PacingConfig(), device("a"))
    assert pace.base == Pace(gap_min=5, gap_max=15, hourly_limit=200, daily_limit=1000)
    assert pace.classes == {"reply": Pace(gap_min=1, gap_max=3, hourly_limit=200, daily_limit=1000, burst=3)}
    assert (pace.zone, pace.warm_up) == (UTC, (50, 100, 200, 400, 700))


def test_a_devices_settings_come_before_the_configs() -> None:
    own = device(
        "a", gap_min=20, hourly_limit=0, daily_limit=7, quiet_hours="21:00-08:00", timezone="Asia/Jakarta", warm=True
    )
    pace = device_pace(config(quiet_hours="12:00-13:00"), own)
    # One end of the pause may be the config's, and then the other one holds it up.
    assert pace.base == Pace(gap_min=20, gap_max=20, hourly_limit=0, daily_limit=7, quiet=NIGHT)
    assert pace.of("reply") == Pace(gap_min=1, gap_max=3, hourly_limit=0, daily_limit=7, burst=3)
    assert (pace.zone, pace.warm_up) == (ZoneInfo("Asia/Jakarta"), ())
    assert device_pace(config(quiet_hours="12:00-13:00"), device("a", quiet_hours="none")).base.quiet is None


def test_the_configs_class_comes_before_the_device_but_only_tightens_its_pauses_and_limits() -> None:
    marketing = {"gap_min": 10, "gap_max": 12, "hourly_limit": 50, "daily_limit": 500, "quiet_hours": "12:00-13:00"}
    careful = device("a", gap_min=30, gap_max=60, hourly_limit=20, daily_limit=100, quiet_hours="21:00-08:00")
    assert device_pace(config(marketing), careful).of("marketing") == Pace(30, 60, 20, 100, NOON)
    bold = device("a", gap_min=1, gap_max=2, hourly_limit=0, daily_limit=5000)
    assert device_pace(config(marketing), bold).of("marketing") == Pace(10, 12, 50, 500, NOON)
    unlimited = {"hourly_limit": 0, "daily_limit": 0}
    assert device_pace(config(unlimited), careful).of("marketing") == Pace(30, 60, 20, 100, NIGHT)
    assert device_pace(config(unlimited), device("a")).of("marketing") == Pace(5, 15, 0, 0)


def test_a_burst_hastens_also_a_careful_device_and_slows_none() -> None:
    assert device_pace(PacingConfig(), device("a", gap_min=30, gap_max=60)).of("reply").gap_max == 3
    fast = device_pace(PacingConfig(hourly_limit=0, daily_limit=0), device("a", gap_min=0, gap_max=0))
    assert fast.classes == {}
    assert not fast.limited
    assert device_pace(PacingConfig(), device("a", gap_min=0.5, gap_max=2)).of("reply").gap_min == 0.5


def test_a_devices_class_comes_first() -> None:
    mine = {"gap_min": 2, "gap_max": 4, "hourly_limit": 300, "daily_limit": 0, "quiet_hours": "none", "burst": 9}
    own = device("a", gap_min=30, gap_max=60, daily_limit=100, quiet_hours="21:00-08:00", classes={"marketing": mine})
    pace = device_pace(config({"gap_min": 10, "daily_limit": 50}), own)
    assert pace.of("marketing") == Pace(2, 4, 300, 0, None, 9)
    assert pace.of("service") == pace.base
    assert device_pace(PacingConfig(), device("a", classes={"reply": {"gap_max": None, "burst": 0}})).of(
        "reply"
    ) == Pace(gap_min=1, gap_max=3, hourly_limit=200, daily_limit=1000)


def test_a_zone_that_only_the_database_knows_is_the_configs() -> None:
    assert (
        device_pace(PacingConfig(timezone="Asia/Jakarta"), device("a", timezone="Factory/Nowhere")).zone.key
        == "Asia/Jakarta"
    )  # type: ignore[attr-defined]  # tzinfo has none, ZoneInfo has


numbers = st.none() | st.integers(0, 50)
hours = st.sampled_from([None, "none", "21:00-08:00"])
settings_of_a_class = st.fixed_dictionaries(
    {},
    optional={
        "gap_min": numbers,
        "gap_max": numbers,
        "hourly_limit": numbers,
        "daily_limit": numbers,
        "quiet_hours": hours,
        "burst": st.integers(0, 3),
    },
)


@given(
    st.builds(
        device,
        st.just("a"),
        gap_min=numbers,
        gap_max=numbers,
        hourly_limit=numbers,
        daily_limit=numbers,
        quiet_hours=hours,
        classes=st.dictionaries(st.sampled_from(CLASSES), settings_of_a_class),
    ),
    settings_of_a_class,
)
def test_whatever_is_set_a_pause_is_a_range_and_the_config_never_hastens_a_careful_device(
    own: Device, marketing: dict[str, Any]
) -> None:
    configured = {**marketing, "burst": marketing.get("burst", 0)}
    pace = device_pace(config(configured), own)
    for one in (pace.base, *pace.classes.values()):
        assert 0 <= one.gap_min <= one.gap_max
    found, mine = pace.of("marketing"), own.classes.get("marketing", {})
    for limit in ("hourly_limit", "daily_limit"):
        if mine.get(limit) is None and getattr(own, limit):
            assert 0 < getattr(found, limit) <= getattr(own, limit)
    if not found.burst and mine.get("gap_min") is None and not mine.get("burst") and not configured["burst"]:
        assert found.gap_min >= (own.gap_min or 0)
