"""The gap, the daily limit, and where a day ends."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.pacing import Pace, day_of, next_midnight

ZONES = ["UTC", "Asia/Jakarta", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Kiritimati", "Asia/Kathmandu"]


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_a_gap_lies_between_its_bounds(low: float, more: float) -> None:
    pace = Pace(gap_min=low, gap_max=low + more)
    assert low <= pace.gap() <= low + more


def test_without_a_gap_there_is_none() -> None:
    assert Pace().gap() == 0.0
    assert not Pace().limited


@pytest.mark.parametrize("pace", [Pace(gap_max=0.1), Pace(daily_limit=1)])
def test_what_has_a_limit_is_counted(pace: Pace) -> None:
    assert pace.limited


def test_a_limit_is_spent_when_it_is_reached() -> None:
    pace = Pace(daily_limit=3)
    assert [pace.spent(sent) for sent in (0, 2, 3, 4)] == [False, False, True, True]
    assert not Pace(daily_limit=0).spent(10**9)


def test_the_day_is_the_zones() -> None:
    late = datetime(2026, 3, 1, 18, 30, tzinfo=UTC)
    assert day_of(late, ZoneInfo("Asia/Jakarta")) == date(2026, 3, 2)
    assert day_of(late, ZoneInfo("UTC")) == date(2026, 3, 1)
    assert day_of(late, ZoneInfo("America/Sao_Paulo")) == date(2026, 3, 1)


def test_a_day_may_have_23_or_25_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for day, hours in ((29, 23), (30, 24)):
        noon = datetime(2026, 3, day - 1, 23, 0, tzinfo=berlin)
        begin = next_midnight(noon, berlin)
        end = next_midnight(begin, berlin)
        assert end.astimezone(UTC) - begin.astimezone(UTC) == timedelta(hours=hours)


@given(st.datetimes(datetime(2001, 1, 1), datetime(2090, 1, 1)), st.sampled_from(ZONES))  # noqa: DTZ001  # hypothesis adds none
def test_midnight_begins_the_next_day(moment: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    aware = moment.replace(tzinfo=UTC)
    midnight = next_midnight(aware, zone)
    assert midnight > aware
    assert day_of(midnight, zone) == day_of(aware, zone) + timedelta(days=1)
    assert day_of(midnight - timedelta(seconds=1), zone) == day_of(aware, zone)
