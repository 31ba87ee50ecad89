"""When a device may send: gaps, limits, quiet hours, warm-up and bursts, compared with a plain recount."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shardd.pacing import CLASSES, DevicePace, NextSend, Pace, QuietHours, Tally, next_midnight, next_send

ZONES = [
    "UTC",
    "Asia/Jakarta",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Pacific/Kiritimati",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Cairo",
]
BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=BERLIN), datetime(2026, 10, 25, tzinfo=BERLIN)


@pytest.mark.parametrize("pace", [Pace(gap_max=0.1), Pace(daily_limit=1), Pace(hourly_limit=1)])
def test_what_has_a_limit_is_counted(pace: Pace) -> None:
    assert DevicePace(base=pace).limited
    assert DevicePace(classes={"reply": pace}).limited
    assert not DevicePace().limited


def test_one_message_at_a_time_wherever_there_is_a_gap() -> None:
    assert DevicePace(base=Pace(gap_max=1)).has_gap
    assert DevicePace(classes={"marketing": Pace(gap_max=1)}).has_gap
    assert not DevicePace(base=Pace(daily_limit=5)).has_gap


# ---- the calendar


def test_the_day_is_the_zones() -> None:
    late = datetime(2026, 3, 1, 18, 30, tzinfo=UTC)
    assert next_midnight(late, ZoneInfo("Asia/Jakarta")).date() == date(2026, 3, 3)
    assert next_midnight(late, ZoneInfo("UTC")).date() == date(2026, 3, 2)
    assert next_midnight(late, ZoneInfo("America/Sao_Paulo")).date() == date(2026, 3, 2)


def test_a_day_may_have_23_or_25_hours() -> None:
    for day, hours in ((SPRING, 23), (AUTUMN, 25), (SPRING + timedelta(days=1), 24)):
        begin = next_midnight(day - timedelta(hours=1), BERLIN)
        end = next_midnight(begin, BERLIN)
        assert end.astimezone(UTC) - begin.astimezone(UTC) == timedelta(hours=hours)


@given(st.datetimes(datetime(2012, 1, 1), datetime(2037, 1, 1)), st.sampled_from(ZONES))  # noqa: DTZ001  # hypothesis adds none
def test_midnight_begins_the_next_day(moment: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    aware = moment.replace(tzinfo=UTC)
    midnight = next_midnight(aware, zone)
    assert midnight > aware
    assert midnight.astimezone(zone).date() == aware.astimezone(zone).date() + timedelta(days=1)
    before = midnight.astimezone(UTC) - timedelta(seconds=1)
    assert before.astimezone(zone).date() == aware.astimezone(zone).date()


def quiet_minutes(text: str) -> set[int]:
    """The minutes of a day that are quiet, counted one by one."""
    (h1, m1), (h2, m2) = ((int(n) for n in part.split(":")) for part in text.split("-"))
    minute, end, quiet = h1 * 60 + m1, h2 * 60 + m2, set()
    while minute != end:
        quiet.add(minute)
        minute = (minute + 1) % 1440
    return quiet


@given(st.times(), st.times(), st.times())
def test_quiet_hours_are_the_minutes_from_their_begin_to_their_end(start: time, end: time, clock: time) -> None:
    start, end = start.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
    assume(start != end)
    text = f"{start:%H:%M}-{end:%H:%M}"
    hours = QuietHours.read(text)
    assert hours == QuietHours(start, end)
    moment = datetime.combine(date(2026, 5, 5), clock, tzinfo=UTC)
    quiet = clock.hour * 60 + clock.minute in quiet_minutes(text)
    until = hours.until(moment)
    assert (until is not None) == quiet
    if until is not None:
        assert moment < until <= moment + timedelta(days=1)
        assert until.time() == end


@pytest.mark.parametrize(
    "text", ["", "21-8", "21:00", "21:00-24:00", "8:00-9:00", "08:00-08:00", "21:00..08:00", "None"]
)
def test_what_is_no_range_of_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a range of hours"):
        QuietHours.read(text)
    assert QuietHours.read("none") is None


def test_quiet_hours_on_the_days_when_the_clock_changes() -> None:
    night = QuietHours(time(22), time(2, 30))

    def until(quiet: QuietHours, utc_hour: float, day: datetime) -> datetime | None:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = quiet.until((midnight + timedelta(hours=utc_hour)).astimezone(BERLIN))
        return None if end is None else end.astimezone(UTC)

    # 02:30 is shown twice, at 00:30 and 01:30 UTC: between them it is 02:40 once and 02:10 once.
    assert until(night, 0.2, AUTUMN) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert until(night, 0.6, AUTUMN) is None
    assert until(night, 1.2, AUTUMN) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    # 02:30 is not shown at all: at 01:00 UTC it is 03:00.
    assert until(night, 1.0, SPRING) is None
    early = QuietHours(time(1), time(4))
    assert until(early, 0.5, SPRING) == datetime(2026, 3, 29, 2, tzinfo=UTC)


# ---- whole histories


@dataclass
class History:
    """A device that sends whenever it may, and everything that it sent."""

    pace: DevicePace
    wall: float
    """Moments are POSIX seconds here: `ahead` is 0."""
    tally: Tally = field(default_factory=Tally)
    sent: list[tuple[float, float, str, str | None]] = field(default_factory=list)
    """(start, end, class, what it waited for)"""

    def local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.pace.zone)

    def send(self, job_class: str, takes: float) -> None:
        waited = None
        for _ in range(4):
            turn = next_send(self.pace, job_class, self.tally, now=self.wall, ahead=0.0)
            if turn.at <= self.wall:
                break
            early = self.wall + (turn.at - self.wall) * 0.99
            earlier = next_send(self.pace, job_class, self.tally, now=early, ahead=0.0)
            assert earlier.at > early or self.ends_at_a_skipped_time(turn, job_class)
            self.wall, waited = turn.at, turn.why
        else:
            raise AssertionError(f"its turn never came: {turn}")
        start, self.wall = self.wall, self.wall + takes
        self.tally.count(self.local(self.wall))
        self.tally.end(self.wall, self.pace, job_class)
        self.sent.append((start, self.wall, job_class, waited))

    def ends_at_a_skipped_time(self, turn: NextSend, job_class: str) -> bool:
        """Quiet hours whose end the clock does not show are expected to end a little later than they do."""
        quiet = self.pace.of(job_class).quiet
        return quiet is not None and turn.why == "its quiet hours" and self.local(turn.at).time() != quiet.end

    def restart(self) -> None:
        """What the database remembers of it."""
        if not self.sent:
            return
        ends = [self.local(end) for _, end, _, _ in self.sent]
        day, hour = ends[-1].date(), max(end.hour for end in ends if end.date() == ends[-1].date())
        self.tally = Tally(
            ended=self.sent[-1][1],
            day=day,
            sent=sum(end.date() == day for end in ends),
            hour=hour,
            hour_sent=sum((end.date(), end.hour) == (day, hour) for end in ends),
            days=min(len({end.date() for end in ends} - {day}), len(self.pace.warm_up)),
        )

    # ---- the recount

    def check(self) -> None:
        for number, (start, _, job_class, waited) in enumerate(self.sent):
            own, begin = self.pace.of(job_class), self.local(start)
            before = [self.local(end) for _, end, _, _ in self.sent[:number]]
            self._check_limits(own, begin, before)
            if own.quiet is not None:
                text = f"{own.quiet.start:%H:%M}-{own.quiet.end:%H:%M}"
                assert begin.hour * 60 + begin.minute not in quiet_minutes(text)
            if number:
                self._check_gap(own, start - self.sent[number - 1][1], waited)
        self._check_bursts()

    def _check_limits(self, own: Pace, begin: datetime, before: list[datetime]) -> None:
        same_hour = sum((end.date(), end.hour) == (begin.date(), begin.hour) for end in before)
        assert own.hourly_limit == 0 or same_hour < own.hourly_limit
        limit = own.daily_limit
        days = len({end.date() for end in before if end.date() < begin.date()})
        if limit and days < len(self.pace.warm_up):
            limit = min(limit, self.pace.warm_up[days])
        assert limit == 0 or sum(end.date() == begin.date() for end in before) < limit

    def _check_gap(self, own: Pace, gap: float, waited: str | None) -> None:
        rounding = 1e-5
        assert gap >= min(own.gap_min, self.pace.base.gap_min if own.burst else own.gap_min) - rounding
        if waited == "its gap":
            assert gap <= max(own.gap_max, self.pace.base.gap_max if own.burst else 0.0) + rounding

    def _check_bursts(self) -> None:
        """No run has more messages that waited less than the device's gap than a burst holds and what came back meanwhile."""
        base = self.pace.base
        for job_class, own in self.pace.classes.items():
            if not own.burst or base.gap_min <= own.gap_max:
                continue
            fast = [
                start
                for (start, _, name, _), (_, end, _, _) in zip(self.sent[1:], self.sent, strict=False)
                if name == job_class and start - end < base.gap_min - 1e-5
            ]
            for first, begin in enumerate(fast):
                for last, now in enumerate(fast[first:], 1):
                    assert last <= own.burst + (now - begin) / base.gap_max + 1 + 1e-5


def paces(*, bursts: bool) -> st.SearchStrategy[Pace]:
    times = st.integers(0, 1439).map(lambda minute: time(minute // 60, minute % 60))
    hours = st.tuples(times, times).filter(lambda pair: pair[0] != pair[1]).map(lambda pair: QuietHours(*pair))
    return st.builds(
        lambda low, more, hourly, daily, quiet, burst: Pace(low, low + more, hourly, daily, quiet, burst),
        st.sampled_from([0.0, 1.0, 60.0, 1500.0]),
        st.sampled_from([0.0, 3.0, 600.0]),
        st.sampled_from([0, 1, 2, 5]),
        st.sampled_from([0, 1, 3, 10]),
        st.none() | hours,
        st.sampled_from([0, 1, 3]) if bursts else st.just(0),
    )


device_paces = st.builds(
    DevicePace,
    base=paces(bursts=False),
    classes=st.dictionaries(st.sampled_from(CLASSES[1:]), paces(bursts=True)),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    warm_up=st.sampled_from([(), (1,), (1, 2), (2, 2, 4)]),
)
changes_of_the_clock = st.sampled_from(
    [SPRING, AUTUMN, datetime(2026, 4, 5, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]
)
steps = st.lists(
    st.tuples(
        st.sampled_from(CLASSES),
        st.sampled_from([0.0, 0.3, 40.0]),
        st.sampled_from([0.0, 0.0, 0.0, 7.0, 1700.0, 9 * 3600.0]),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=400)
@given(device_paces, changes_of_the_clock, st.integers(-100_000, 100_000), steps)
def test_no_history_breaks_a_rule(
    pace: DevicePace, day: datetime, seconds: int, steps: list[tuple[str, float, float, bool]]
) -> None:
    history = History(pace, day.timestamp() + seconds)
    for job_class, takes, idle, restarts in steps:
        history.send(job_class, takes)
        history.wall += idle
        if restarts:
            history.restart()
    history.check()


# ---- single rules, in numbers


def test_a_gap_lies_between_its_bounds() -> None:
    pace = DevicePace(base=Pace(gap_min=5, gap_max=15))
    gaps = set()
    for _ in range(200):
        tally = Tally()
        tally.end(1000.0, pace, "marketing")
        turn = next_send(pace, "marketing", tally, now=1000.0, ahead=0.0)
        assert 1005 <= turn.at <= 1015
        assert turn.why == "its gap"
        gaps.add(turn.at)
    assert max(gaps) - min(gaps) > 5


def test_replies_burst_and_then_go_at_the_devices_pace() -> None:
    pace = DevicePace(base=Pace(gap_min=10, gap_max=10), classes={"reply": Pace(gap_min=1, gap_max=1, burst=3)})
    history = History(pace, 0.0)
    for _ in range(6):
        history.send("reply", 0.0)
    assert [start for start, *_ in history.sent] == pytest.approx([0, 1, 2, 10, 20, 30])
    history.wall += 30
    for _ in range(5):
        history.send("reply", 0.0)
    assert [start for start, *_ in history.sent[6:]] == pytest.approx([60, 61, 62, 70, 80])


def test_after_a_reply_others_wait_for_the_devices_gap() -> None:
    pace = DevicePace(base=Pace(gap_min=10, gap_max=10), classes={"reply": Pace(gap_min=1, gap_max=1, burst=3)})
    history = History(pace, 0.0)
    for job_class in ("marketing", "reply", "marketing"):
        history.send(job_class, 0.0)
    assert [start for start, *_ in history.sent] == [0, 1, 11]


def test_a_class_has_no_more_of_a_burst_because_another_class_may_have_more() -> None:
    quick = {"service": Pace(burst=3), "reply": Pace(burst=1)}
    pace = DevicePace(base=Pace(gap_min=10, gap_max=10), classes=quick)
    tally = Tally()
    for job_class, wait in (("marketing", 0), ("reply", 0), ("reply", 10), ("service", 0)):
        turn = next_send(pace, job_class, tally, now=max(tally.ended, 0.0), ahead=0.0)
        assert turn.at == max(tally.ended, 0.0) + wait, job_class
        tally.end(turn.at, pace, job_class)


def test_a_restart_makes_no_burst() -> None:
    pace = DevicePace(base=Pace(gap_min=10, gap_max=10), classes={"reply": Pace(gap_min=1, gap_max=1, burst=3)})
    history = History(pace, 0.0)
    for _ in range(4):
        history.send("reply", 0.0)
        history.restart()
    assert [start for start, *_ in history.sent] == [0, 10, 20, 30]


def test_a_warm_up_grows_with_the_days_on_which_the_device_sends() -> None:
    pace = DevicePace(base=Pace(daily_limit=5), warm_up=(1, 2, 4))
    history = History(pace, 0.0)
    for number in range(13):
        history.send("marketing", 0.0)
        if number == 0:
            history.wall += 86400 * 9  # days without a message warm nobody up
    days = [datetime.fromtimestamp(start, UTC).day for start, *_ in history.sent]
    assert days == [1, 10, 10, 11, 11, 11, 11, 12, 12, 12, 12, 12, 13]
    assert {waited for *_, waited in history.sent[1:7]} == {None, "its warm-up"}
    assert history.sent[12][3] == "its daily limit"


def test_a_class_is_measured_against_all_that_was_sent() -> None:
    pace = DevicePace(base=Pace(daily_limit=3), classes={"marketing": Pace(daily_limit=2), "reply": Pace()})
    history = History(pace, 0.0)
    for job_class in ("service", "reply", "marketing", "service"):
        history.send(job_class, 0.0)
    assert [datetime.fromtimestamp(start, UTC).day for start, *_ in history.sent] == [1, 1, 2, 2]


def test_what_is_in_hand_counts_against_the_limits_of_now() -> None:
    pace = DevicePace(base=Pace(hourly_limit=3))
    tally = Tally()
    tally.count(datetime(1970, 1, 1, tzinfo=UTC))
    assert next_send(pace, "service", tally, now=60.0, ahead=0.0, in_flight=1).at == 60.0
    turn = next_send(pace, "service", tally, now=60.0, ahead=0.0, in_flight=2)
    assert (turn.at, turn.why) == (3600.0, "its hourly limit")


def test_an_hour_that_is_shown_twice_is_one_hour_and_ends_twice() -> None:
    pace = DevicePace(base=Pace(hourly_limit=1), zone=BERLIN)
    history = History(pace, datetime(2026, 10, 25, 0, 10, tzinfo=UTC).timestamp())
    history.send("service", 0.0)
    history.send("service", 0.0)
    starts = [datetime.fromtimestamp(start, UTC) for start, *_ in history.sent]
    assert starts[1] == datetime(2026, 10, 25, 2, 0, tzinfo=UTC)
