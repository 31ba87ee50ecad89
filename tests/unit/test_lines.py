"""Whose turn it is: gaps, limits, states, fairness, and that no hint is lost, by hand and against a model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shardd.ipc import JobSpec, Outcome
from shardd.pacing import Pace
from shardd.queue.cycle import Ask, Place
from shardd.queue.devices import Device, StateChange
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, DeviceState, Verdict
from shardd.supervisor.lines import FIRST_PLACE, TROUBLE_CAP, TROUBLE_FIRST, Lines

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WALL = 1_800_000_000.0


def device(name: str, **fields: Any) -> Device:
    """By default without gap and limit; gap and limit as the device's own."""
    plain = Device(
        id=name,
        transport="sandbox",
        label=None,
        session=None,
        proxy=None,
        settings={},
        state=DeviceState.READY,
        reason=None,
        state_since=EPOCH,
        state_until=None,
        paused_at=None,
        paused_why=None,
        gap_min=None,
        gap_max=None,
        daily_limit=None,
    )
    return replace(plain, **fields)


def pace_of(which: Device) -> Pace:
    return Pace(which.gap_min or 0.0, which.gap_max or 0.0, which.daily_limit or 0)


def make_lines(room: int = 1) -> Lines:
    """Devices a… live on shard 0, b… on shard 1."""
    return Lines(
        shard_of=lambda name: 1 if name.startswith("b") else 0,
        pace_of=pace_of,
        room_of=lambda transport: room if transport == "sandbox" else 1,
    )


def look(lines: Lines, *devices: Device, now: float = 0.0, unwritten: dict[str, StateChange] | None = None) -> Any:
    return lines.look(devices, now, wall=WALL + now, unwritten=unwritten or {})


def ready(*devices: Device, room: int = 1) -> Lines:
    """Both shards are up, and every device has work from the beginning of its line."""
    lines = make_lines(room)
    look(lines, *devices)
    lines.shard_up(0, 10, 0.0)
    lines.shard_up(1, 11, 0.0)
    for each in devices:
        lines.hint(each.id, (1, 1), 0.0)
    return lines


def asked(lines: Lines, now: float = 0.0, most: int = 100) -> list[str]:
    return [ask.device_id for ask in lines.asks(most, now)]


def take(lines: Lines, now: float = 0.0, most: int = 100) -> list[Claim]:
    """Ask, and get as many jobs as were asked for."""
    asks = lines.asks(most, now)
    claims = [
        Claim(1000 + number, ask.epoch, 1, ask.device_id, 0, 5, "hold", 1) for ask in asks for number in range(ask.room)
    ]
    lines.claimed(asks, [(JobSpec(c.id, c.epoch, c.attempt, c.device_id, "+628"), c) for c in claims], now)
    return claims


def end(
    lines: Lines, claim: Claim, now: float, verdict: Verdict = Verdict.SENT, *, back: bool = False, **more: Any
) -> None:
    lines.ended(claim, Outcome(claim.id, claim.epoch, claim.attempt, verdict.value, **more), now, back=back)


# ---- who may send


def test_a_device_needs_work_and_a_shard() -> None:
    lines = make_lines()
    look(lines, device("a"), device("b"))
    lines.hint("a", (5, 7), 0.0)
    assert lines.asks(10, 0.0) == []
    lines.shard_up(0, 10, 0.0)
    assert lines.asks(10, 0.0) == [Ask("a", 10, FIRST_PLACE, 1)]
    lines.shard_up(1, 11, 0.0)
    assert lines.asks(10, 0.0) == []


def test_a_shard_that_went_down_gets_no_turns_until_it_is_back() -> None:
    lines = ready(device("a"), device("b"))
    lines.shard_down(0)
    assert asked(lines) == ["b"]
    lines.shard_up(0, 12, 0.0)
    assert [(ask.device_id, ask.epoch) for ask in lines.asks(10, 0.0)] == [("a", 12)]


@pytest.mark.parametrize("state", list(DeviceState))
def test_only_devices_that_can_send_get_turns(state: DeviceState) -> None:
    assert asked(ready(device("a", state=state))) == (["a"] if state in CAN_SEND else [])


def test_a_paused_device_waits_until_it_is_resumed() -> None:
    lines = ready(device("a", paused_at=EPOCH))
    assert asked(lines) == []
    look(lines, device("a"))
    assert asked(lines) == ["a"]


def test_a_device_that_was_removed_has_no_turn_and_comes_back_as_new() -> None:
    lines = ready(device("a"), device("a2"))
    (claim, _) = take(lines)
    assert look(lines, device("a2"))[0].removed == ["a"]
    lines.hint("a", (1, 1), 0.0)
    assert asked(lines) == []
    end(lines, claim, 0.0)
    assert look(lines, device("a"), device("a2"))[0].changed == [device("a").spec]
    lines.hint("a", (1, 1), 0.0)
    assert asked(lines) == ["a"]


def test_what_a_worker_learned_counts_before_it_is_written() -> None:
    lines = ready(device("a"))
    change = StateChange("a", DeviceState.LOGGED_OUT, "phone", None, 1.0)
    lines.state_changed(change)
    assert asked(lines) == []
    look(lines, device("a"), unwritten={"a": change})
    assert asked(lines) == []
    look(lines, device("a"))
    assert asked(lines) == ["a"]


def test_a_look_tells_workers_what_concerns_them() -> None:
    lines = make_lines()
    assert {shard: c.changed for shard, c in look(lines, device("a"), device("b")).items()} == {
        0: [device("a").spec],
        1: [device("b").spec],
    }
    assert look(lines, device("a", sent_today=5, reason="x"), device("b")) == {}
    changed = device("a", proxy="socks5://p")
    assert {shard: c.changed for shard, c in look(lines, changed, device("b")).items()} == {0: [changed.spec]}


# ---- gaps


def test_the_gap_runs_from_the_end_of_a_message() -> None:
    lines = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(lines)
    assert lines.next_turn(50.0) is None
    end(lines, claim, 50.0)
    assert asked(lines, 59.9) == []
    assert lines.next_turn(55.0) == 5.0
    assert asked(lines, 60.0) == ["a"]


@pytest.mark.parametrize("verdict", [Verdict.SENT, Verdict.PERMANENT, Verdict.TRANSIENT, Verdict.IN_DOUBT])
def test_every_try_is_followed_by_a_gap(verdict: Verdict) -> None:
    lines = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(lines)
    end(lines, claim, 0.0, verdict)
    assert asked(lines, 9.9) == []
    assert asked(lines, 10.0) == ["a"]


def test_what_never_started_is_followed_by_none() -> None:
    lines = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.RETURNED, back=True)
    assert asked(lines) == ["a"]


def test_a_restricted_device_keeps_its_gap_between_new_contacts() -> None:
    lines = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.UNAVAILABLE, device_state="restricted")
    assert asked(lines, 9.9) == []
    assert asked(lines, 10.0) == ["a"]


def test_a_restart_does_not_forget_the_gap() -> None:
    last = datetime.fromtimestamp(WALL - 4, UTC)
    lines = ready(device("a", gap_min=10.0, gap_max=10.0, last_at=last))
    assert asked(lines, 5.9) == []
    assert asked(lines, 6.0) == ["a"]


def test_a_clock_that_runs_ahead_costs_one_gap_at_most() -> None:
    lines = ready(device("a", gap_min=10.0, gap_max=10.0, last_at=datetime.fromtimestamp(WALL + 9999, UTC)))
    assert asked(lines, 10.0) == ["a"]


def test_a_take_over_does_not_forget_the_gap() -> None:
    lines = make_lines()
    slow = device("a", gap_min=10.0, gap_max=10.0)
    look(lines, slow)
    look(lines, replace(slow, last_at=datetime.fromtimestamp(WALL + 98, UTC)), now=100.0)
    lines.shard_up(0, 10, 100.0)
    lines.hint("a", (1, 1), 100.0)
    assert asked(lines, 107.9) == []
    assert asked(lines, 108.0) == ["a"]


def test_with_a_gap_there_is_one_in_hand_however_much_room_the_transport_has() -> None:
    assert [ask.room for ask in ready(device("a"), room=5).asks(10, 0.0)] == [5]
    assert [ask.room for ask in ready(device("a", gap_min=1.0, gap_max=1.0), room=5).asks(10, 0.0)] == [1]


# ---- trouble


def test_a_device_out_of_reach_is_tried_again_after_the_time_that_was_asked_for() -> None:
    lines = ready(device("a"))
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.UNAVAILABLE, back=True, retry_after=60.0)
    assert asked(lines, 59.9) == []
    assert asked(lines, 60.0) == ["a"]


def test_a_device_out_of_reach_is_tried_more_and_more_seldom_but_is_tried() -> None:
    lines = ready(device("a"))
    now = 0.0
    for tries in range(1, 15):
        (claim,) = take(lines, now)
        end(lines, claim, now, Verdict.UNAVAILABLE, back=True)
        wait = lines.next_turn(now)
        assert wait is not None
        assert wait <= min(TROUBLE_CAP, TROUBLE_FIRST * 2 ** (tries - 1))
        now += wait


def test_a_device_that_is_well_again_need_not_sit_out_its_trouble() -> None:
    lines = ready(device("a"))
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.UNAVAILABLE, back=True, retry_after=600.0)
    look(lines, device("a", state=DeviceState.LOGGED_OUT), now=1.0)
    look(lines, device("a"), now=2.0)
    assert lines.next_turn(2.0) == 0.0
    assert asked(lines, 2.0) == ["a"]
    assert asked(lines, 600.0) == []  # one hint, one turn


# ---- limits


def test_the_limit_counts_what_was_sent_may_have_been_and_is_in_hand() -> None:
    lines = ready(device("a", daily_limit=3, sent_today=1))
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.PERMANENT)
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.IN_DOUBT)
    (claim,) = take(lines)
    end(lines, claim, 0.0, Verdict.SENT)
    assert take(lines) == []
    lines.new_day(1.0)
    assert asked(lines, 1.0) == ["a"]


def test_an_ask_never_reaches_beyond_the_limit() -> None:
    lines = ready(device("a", daily_limit=10, sent_today=8), room=5)
    assert len(take(lines)) == 2
    assert take(lines) == []


def test_a_take_over_does_not_forget_what_was_sent_today() -> None:
    lines = make_lines()
    look(lines, device("a", daily_limit=10))
    look(lines, device("a", daily_limit=10, sent_today=10))
    lines.shard_up(0, 10, 0.0)
    lines.hint("a", (1, 1), 0.0)
    assert asked(lines) == []


def test_what_the_database_has_not_counted_yet_is_not_forgotten() -> None:
    lines = ready(device("a", daily_limit=1))
    (claim,) = take(lines)
    end(lines, claim, 0.0)
    look(lines, device("a", daily_limit=1, sent_today=0, reason="something changed"))
    lines.hint("a", (1, 1), 0.0)
    assert asked(lines) == []


def test_a_raised_limit_counts_at_once() -> None:
    lines = ready(device("a", daily_limit=1, sent_today=1))
    assert asked(lines) == []
    look(lines, device("a", daily_limit=2, sent_today=1))
    assert asked(lines) == ["a"]


# ---- fairness and hints


def test_a_long_line_waits_for_its_turn_like_a_short_one() -> None:
    names = [f"a{number}" for number in range(50)]
    lines = ready(device("a-long"), *(device(name) for name in names))
    served: list[str] = []
    while len(set(served)) < 51:
        before = len(served)
        for claim in take(lines, most=10):
            served.append(claim.device_id)
            end(lines, claim, 0.0)
            if claim.device_id == "a-long":
                lines.hint("a-long", (1, 1), 0.0)
        assert len(served) > before
    assert served.count("a-long") <= 2


def test_turns_go_round() -> None:
    names = [f"a{number}" for number in range(7)]
    lines = ready(*(device(name) for name in names))
    served = []
    for _ in range(21):
        (claim,) = take(lines, most=1)
        served.append(claim.device_id)
        end(lines, claim, 0.0)
    assert served == names * 3


def test_an_ask_takes_no_more_than_it_may() -> None:
    lines = ready(*(device(f"a{number}") for number in range(10)), room=4)
    rooms = [ask.room for ask in lines.asks(10, 0.0)]
    assert rooms == [4, 4, 2]


def test_a_device_without_jobs_is_not_asked_again() -> None:
    lines = ready(device("a"))
    asks = lines.asks(10, 0.0)
    lines.claimed(asks, [], 0.0)
    assert lines.next_turn(0.0) is None
    assert asked(lines) == []


def test_a_hint_during_an_ask_is_not_lost() -> None:
    lines = ready(device("a"))
    asks = lines.asks(10, 0.0)
    lines.hint("a", (50, 5), 0.0)
    lines.claimed(asks, [], 0.0)
    assert asked(lines) == ["a"]


def test_a_hint_of_an_earlier_place_during_an_ask_is_not_lost() -> None:
    lines = ready(device("a"))
    asks = lines.asks(10, 0.0)
    # An urgent job comes while the claim is under way, which brings a job from further back.
    lines.hint("a", (-7, 900), 0.0)
    claim = Claim(3, 10, 1, "a", 0, 5, "hold", ord=100)
    lines.claimed(asks, [(JobSpec(3, 10, 1, "a", "+628"), claim)], 0.0)
    end(lines, claim, 0.0)
    (ask,) = lines.asks(10, 0.0)
    assert ask.low <= (-7, 900)


def test_a_job_that_comes_back_is_where_its_line_begins() -> None:
    lines = ready(device("a"))
    asks = lines.asks(10, 0.0)
    claim = Claim(3, 10, 1, "a", 0, 5, "hold", ord=100)
    lines.claimed(asks, [(JobSpec(3, 10, 1, "a", "+628"), claim)], 0.0)
    end(lines, claim, 0.0, Verdict.RETURNED, back=True)
    (ask,) = lines.asks(10, 0.0)
    assert ask.low <= (100, 3)


def test_a_failed_claim_proves_nothing() -> None:
    lines = ready(device("a"))
    lines.unasked(lines.asks(10, 0.0), 0.0)
    assert asked(lines) == ["a"]


def test_a_device_that_is_well_again_keeps_its_gap() -> None:
    lines = ready(device("a", gap_min=10.0, gap_max=10.0))
    (claim,) = take(lines)
    end(lines, claim, 0.0)
    look(lines, device("a", gap_min=10.0, gap_max=10.0, state=DeviceState.BANNED), now=1.0)
    look(lines, device("a", gap_min=10.0, gap_max=10.0), now=2.0)
    assert asked(lines, 9.9) == []
    assert asked(lines, 10.0) == ["a"]


def test_a_hint_for_nobody_is_ignored() -> None:
    lines = ready(device("a"))
    asked(lines)
    lines.hint("stranger", (1, 1), 0.0)
    assert asked(lines) == []


def test_new_paces_count_at_once() -> None:
    paces = {"a": Pace(daily_limit=1)}
    lines = Lines(shard_of=lambda _: 0, pace_of=lambda which: paces[which.id], room_of=lambda _: 1)
    look(lines, device("a", sent_today=1))
    lines.shard_up(0, 10, 0.0)
    lines.hint("a", (1, 1), 0.0)
    assert asked(lines) == []
    paces["a"] = Pace()
    lines.repace(0.0)
    assert asked(lines) == ["a"]


# ---- against a model

NAMES = ["a1", "a2", "b1", "b2"]
names = st.sampled_from(NAMES)


class LinesMachine(RuleBasedStateMachine):
    """A table of jobs beside the lines; every job is hinted when it is there, as the watchers do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ids = 0
        self.jobs: dict[str, set[Place]] = {name: set() for name in NAMES}
        self.hand: dict[int, Claim] = {}
        self.flight: list[Ask] | None = None
        self.up: dict[int, int] = {}
        self.sent: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.last_end: dict[str, float] = {}
        self.trouble_until: dict[str, float] = dict.fromkeys(NAMES, 0.0)

    @initialize(
        gaps=st.lists(st.sampled_from([0.0, 3.0]), min_size=4, max_size=4),
        limits=st.lists(st.sampled_from([0, 2]), min_size=4, max_size=4),
        room=st.sampled_from([1, 3]),
    )
    def begin(self, gaps: list[float], limits: list[int], room: int) -> None:
        self.room = room
        self.devices = {
            name: device(name, gap_min=gap, gap_max=gap, daily_limit=limit)
            for name, gap, limit in zip(NAMES, gaps, limits, strict=True)
        }
        self.lines = make_lines(room)
        look(self.lines, *self.devices.values())

    # ---- the world

    @rule(name=names, ord=st.integers(-3, 3))
    def insert(self, name: str, ord: int) -> None:  # noqa: A002  # the column's name
        self.ids += 1
        self.jobs[name].add((ord, self.ids))
        self.lines.hint(name, (ord, self.ids), self.now)

    @rule(shard=st.sampled_from([0, 1]))
    def shard_up(self, shard: int) -> None:
        self.up[shard] = self.up.get(shard, 0) + 10 + shard
        self.lines.shard_up(shard, self.up[shard], self.now)

    @rule(shard=st.sampled_from([0, 1]))
    def shard_down(self, shard: int) -> None:
        self.up.pop(shard, None)
        self.lines.shard_down(shard)

    @rule(name=names)
    def pause_or_resume(self, name: str) -> None:
        before = self.devices[name]
        self.devices[name] = replace(before, paused_at=None if before.paused_at else EPOCH)
        self.look()

    @rule(name=names)
    def lose_or_mend_session(self, name: str) -> None:
        before = self.devices[name]
        self.trouble_until[name] = 0.0
        state = DeviceState.READY if before.state is not DeviceState.READY else DeviceState.LOGGED_OUT
        self.devices[name] = replace(before, state=state)
        self.look()

    @rule()
    def look(self) -> None:
        look(self.lines, *self.devices.values(), now=self.now)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def midnight(self) -> None:
        self.sent = dict.fromkeys(NAMES, 0)
        self.lines.new_day(self.now)

    # ---- the router

    @precondition(lambda self: self.flight is None)
    @rule(most=st.integers(1, 6))
    def ask(self, most: int) -> None:
        self.flight = self.lines.asks(most, self.now)
        assert sum(ask.room for ask in self.flight) <= most
        assert len({ask.device_id for ask in self.flight}) == len(self.flight)
        for ask in self.flight:
            self.check_ask(ask)

    @precondition(lambda self: self.flight is not None)
    @rule()
    def answer(self) -> None:
        assert self.flight is not None
        jobs = []
        for ask in self.flight:
            line = sorted(place for place in self.jobs[ask.device_id] if place >= ask.low)
            for place in line[: ask.room]:
                claim = Claim(place[1], ask.epoch, 1, ask.device_id, 0, 5, "hold", place[0])
                self.jobs[ask.device_id].discard(place)
                self.hand[claim.id] = claim
                jobs.append((JobSpec(claim.id, claim.epoch, 1, claim.device_id, "+628"), claim))
        self.lines.claimed(self.flight, jobs, self.now)
        self.flight = None

    @precondition(lambda self: self.flight is not None)
    @rule()
    def fail(self) -> None:
        assert self.flight is not None
        self.lines.unasked(self.flight, self.now)
        self.flight = None

    @precondition(lambda self: self.hand)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict))
    def end(self, data: st.DataObject, verdict: Verdict) -> None:
        claim = self.hand.pop(data.draw(st.sampled_from(sorted(self.hand))))
        name = claim.device_id
        back = verdict in (Verdict.RETURNED, Verdict.UNAVAILABLE)
        if back:
            self.jobs[name].add((claim.ord, claim.id))
        if verdict in (Verdict.SENT, Verdict.IN_DOUBT):
            self.sent[name] += 1
        if verdict is Verdict.UNAVAILABLE:
            self.trouble_until[name] = self.now + 5.0
        elif verdict is not Verdict.RETURNED:
            self.last_end[name] = self.now
        end(self.lines, claim, self.now, verdict, back=back, retry_after=5.0)

    # ---- what must hold

    def in_hand(self, name: str) -> int:
        return sum(claim.device_id == name for claim in self.hand.values())

    def check_ask(self, ask: Ask) -> None:
        which = self.devices[ask.device_id]
        shard = 1 if which.id.startswith("b") else 0
        assert self.up.get(shard) == ask.epoch
        assert which.can_send
        room = 1 if which.gap_max else self.room
        assert 1 <= ask.room <= room - self.in_hand(which.id)
        gap_began = self.last_end.get(which.id)
        assert gap_began is None or gap_began + (which.gap_max or 0.0) <= self.now
        assert self.trouble_until[which.id] <= self.now
        if which.daily_limit:
            assert self.sent[which.id] + self.in_hand(which.id) + ask.room <= which.daily_limit
        places = self.jobs[which.id]
        assert not places or ask.low <= min(places)

    def may_send(self, name: str) -> bool:
        which = self.devices[name]
        room = 1 if which.gap_max else self.room
        return (
            bool(self.jobs[name])
            and which.can_send
            and (1 if name.startswith("b") else 0) in self.up
            and self.in_hand(name) < room
            and not (which.daily_limit and self.sent[name] + self.in_hand(name) >= which.daily_limit)
        )

    @invariant()
    def somebodys_turn_comes(self) -> None:
        """Whoever may send stands in line: the wheel never stops while there is work."""
        if not hasattr(self, "lines") or self.flight is not None:
            return
        if any(self.may_send(name) for name in NAMES):
            wait = self.lines.next_turn(self.now)
            assert wait is not None
            assert wait <= 8.0

    def teardown(self) -> None:
        """In the end, with everything up and well, every job is sent, each device's in order of the line."""
        if not hasattr(self, "lines"):
            return
        if self.flight is not None:
            self.fail()
        for name, which in self.devices.items():
            self.devices[name] = replace(which, paused_at=None, state=DeviceState.READY)
        self.look()
        for shard in (0, 1):
            self.shard_up(shard)
        for claim in list(self.hand.values()):
            del self.hand[claim.id]
            end(self.lines, claim, self.now)
        for _ in range(20 * (self.ids + 5)):
            self.midnight()
            self.ask(100)
            self.answer()
            for claim in list(self.hand.values()):
                del self.hand[claim.id]
                end(self.lines, claim, self.now)
            if not any(self.jobs.values()):
                break
            # Nobody's turn may come any more today: the next midnight is due.
            self.now += self.lines.next_turn(self.now) or 0.0
        assert not any(self.jobs.values())


TestAgainstAModel = LinesMachine.TestCase
TestAgainstAModel.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
