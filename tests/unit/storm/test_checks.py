"""Each check of a storm finds what it is for, and nothing in records that keep all promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from stormlib.checks import check
from stormlib.operators import Decision, Pause
from stormlib.phones import pair_logins
from stormlib.producers import Asked
from stormlib.records import Delivery, Records, Row, Span, Visit, Witness

from tests.whatsapp_server.record import Event

RECIPIENT = "+4915112345678"


def records() -> Records:
    """Four jobs: two in a lane, two in an order group; all but the last, which is in doubt, are sent."""
    asked = {
        name: Asked(name, number, "d1", RECIPIENT, None, "g" if number > 2 else None, "hold")
        for number, name in enumerate(("a-1", "a-2", "a-3", "a-4"), 1)
    }
    rows = [Row(n, f"a-{n}", "d1", "sent" if n < 4 else "in_doubt", 1, 0, 100.0 + n, token=77) for n in range(1, 5)]
    witness = Witness()
    for row in rows:
        claim = (row.id, 1, 1, 77)
        witness.started[row.id][claim] = 200.0 + row.id
        witness.handed_over.add(claim)
        if row.state == "sent":
            witness.ending.add(claim)
            witness.outcomes[claim] = "sent"
    deliveries = [Delivery(row.reference, "d1", 200.5 + row.id, "node-1", row.id, 1) for row in rows]
    return Records(asked, dict.fromkeys(asked, 100.0), rows, deliveries, witness)


def lose(found: Records) -> None:
    del found.rows[0]


def double(found: Records) -> None:
    found.deliveries.append(replace(found.deliveries[0], by="node-2"))


def double_the_row(found: Records) -> None:
    found.rows.append(replace(found.rows[0], id=9))


def leave(found: Records) -> None:
    found.rows[0] = replace(found.rows[0], state="sending")


def claim(found: Records) -> None:
    del found.deliveries[0]


def hide(found: Records) -> None:
    found.rows[0] = replace(found.rows[0], state="failed")


def doubt_what_never_started(found: Records) -> None:
    found.witness.started[4].clear()


def doubt_what_was_known(found: Records) -> None:
    found.witness.outcomes[4, 1, 1, 77] = "sent"


def send_what_was_handed_over_again(found: Records) -> None:
    found.rows[3] = replace(found.rows[3], state="sent", attempt=2)
    found.witness.handed_over.add((4, 1, 2, 77))
    found.witness.ending.add((4, 1, 2, 77))


def deny_a_doubt(found: Records) -> None:
    found.rows[3] = replace(found.rows[3], state="failed")


def overtake(found: Records) -> None:
    found.witness.started[2][2, 1, 1, 77] = 200.5


def overtake_in_the_group(found: Records) -> None:
    found.witness.started[4][4, 1, 1, 77] = 203.2


def log_in_twice(found: Records) -> None:
    found.visits += [Visit("d1", "node-1", 100, 200), Visit("d1", "node-2", 150, 180)]


def park(found: Records) -> None:
    found.parked.append(("d1", "replaced", "another client"))


def claim_after_an_opt_out(found: Records) -> None:
    found.opted_out = {RECIPIENT: 201.0}
    found.rows[0] = replace(found.rows[0], claimed_at=201.1)


def insert_after_an_opt_out(found: Records) -> None:
    found.opted_out = {RECIPIENT: 99.0}
    found.rows[0] = replace(found.rows[0], created_at=100.0)


def send_by_a_stranger(found: Records) -> None:
    found.asked["a-1"] = replace(found.asked["a-1"], device=None, device_group="pool")  # type: ignore[index]
    found.groups = {"pool": ["d2"]}


def claim_during_a_pause(found: Records) -> None:
    found.asked["a-1"] = replace(found.asked["a-1"], campaign="spring")  # type: ignore[index]
    found.rows[0] = replace(found.rows[0], claimed_at=201.0)
    found.acts.pauses.append(Pause("spring", 200.5, 201.5))


def undo_a_decision(found: Records) -> None:
    found.acts.decisions[4] = Decision("sent", 1)


def send_a_second_time_what_was_decided(found: Records) -> None:
    found.acts.decisions[3] = Decision("sent", 1)
    found.rows[2] = replace(found.rows[2], attempt=2)


def leave_what_was_retried(found: Records) -> None:
    found.acts.decisions[3] = Decision("queued", 1)
    found.rows[2] = replace(found.rows[2], state="cancelled")


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (lose, "nothing is lost"),
        (double, "nothing is delivered twice"),
        (double_the_row, "nothing is lost"),
        (leave, "everything ends"),
        (claim, "what is sent was delivered"),
        (hide, "what was delivered is sent or in doubt"),
        (doubt_what_never_started, "only what nobody can know is in doubt"),
        (doubt_what_was_known, "only what nobody can know is in doubt"),
        (send_what_was_handed_over_again, "what nobody can know is in doubt"),
        (deny_a_doubt, "what nobody can know is in doubt"),
        (overtake, "a lane keeps its order"),
        (overtake_in_the_group, "an order group keeps its order"),
        (log_in_twice, "a device has one client"),
        (park, "no device is parked for what a node did"),
        (claim_after_an_opt_out, "nothing is sent to who has opted out"),
        (insert_after_an_opt_out, "nothing is sent to who has opted out"),
        (send_by_a_stranger, "a job of a device group is sent by one of its devices"),
        (claim_during_a_pause, "a paused campaign's jobs are not claimed"),
        (undo_a_decision, "what an operator decided stays so"),
        (send_a_second_time_what_was_decided, "what an operator decided stays so"),
        (leave_what_was_retried, "what an operator decided stays so"),
    ],
)
def test_a_broken_promise_is_found(spoil: Callable[[Records], None], promise: str) -> None:
    found = records()
    spoil(found)
    assert promise in {one.promise for one in check(found)}


def test_kept_promises_are_no_finding() -> None:
    assert check(records()) == []


def test_a_second_copy_is_none_where_the_job_asked_to_risk_it() -> None:
    found = records()
    found.asked["a-1"] = replace(found.asked["a-1"], on_doubt="retry")  # type: ignore[index]
    double(found)
    assert check(found) == []


def test_what_was_claimed_before_an_opt_out_may_be_delivered_after_it() -> None:
    found = records()
    found.opted_out = {RECIPIENT: 201.2}
    found.rows[:] = [replace(row, claimed_at=201.1) for row in found.rows]
    assert check(found) == []


def test_what_an_operator_knows_not_to_be_sent_goes_again() -> None:
    found = records()
    send_what_was_handed_over_again(found)
    assert check(found) != []
    found.acts.decisions[4] = Decision("queued", 1)
    assert check(found) == []


def test_an_outcome_that_the_journal_may_have_needs_no_doubt() -> None:
    found = records()
    found.witness.ending.add((4, 1, 1, 77))
    found.rows[3] = replace(found.rows[3], state="failed")
    found.deliveries.pop()
    assert check(found) == []


def test_a_job_behind_a_doubt_may_wait() -> None:
    found = records()
    found.rows.append(
        Row(5, "a-5", "d1", "scheduled", 0, 0, 105.0, waits_for="job 4 of its order group, which is in_doubt")
    )
    found.asked["a-5"] = replace(found.asked["a-4"], reference="a-5", number=5)  # type: ignore[index]
    assert check(found) == []


@pytest.mark.parametrize(
    ("node", "end", "kept"), [("node-1", 160, True), ("node-1", 149, False), ("node-2", 160, False)]
)
def test_the_end_of_a_connection_may_be_held_back(node: str, end: float, kept: bool) -> None:
    found = records()
    log_in_twice(found)
    found.holds.append(Span(140, end, node))
    assert (check(found) == []) == kept


def test_logins_and_disconnects_make_visits() -> None:
    events = [
        Event(1, 10.0, "login", "628:1", {"proxy_user": "node-1"}),
        Event(2, 12.0, "login", "628:1", {"proxy_user": "node-2"}),
        Event(3, 12.1, "disconnect", "628:1", {}),
        Event(4, 15.0, "disconnect", "628:1", {}),
    ]
    assert pair_logins(events, {"628:1": "w0"}) == [
        Visit("w0", "node-1", 10.0, 12.1),
        Visit("w0", "node-2", 12.0, 15.0),
    ]


def test_what_the_database_forgot_is_no_finding() -> None:
    """An insert, an opt-out and a decision that were confirmed in that moment."""
    found = records()
    found.setbacks.append(Span(99.0, 101.0))
    lose(found)
    claim_after_an_opt_out(found)
    undo_a_decision(found)
    assert len(check(found)) > 0
    found.opted_out = {RECIPIENT: 100.5}
    found.acts.decisions[4] = replace(found.acts.decisions[4], at=100.5)
    assert check(found) == []


@pytest.mark.parametrize(
    ("begun", "confirmed", "away", "by", "kept"),
    [
        (90.0, 91.0, "", "node-2", False),
        # The insert was repeated, because its answer was lost.
        (199.0, 203.0, "", "node-2", True),
        # Who had sent it was not there to say so.
        (90.0, 91.0, "node-1", "node-2", True),
        (90.0, 91.0, "node-1", "node-1", False),
    ],
)
def test_a_second_copy_after_a_setback(begun: float, confirmed: float, away: str, by: str, kept: bool) -> None:
    found = records()
    found.deliveries.append(replace(found.deliveries[0], by=by, at=210.0))
    found.setbacks.append(Span(201.0, 202.0))
    found.begun, found.confirmed = {"a-1": begun}, {**found.confirmed, "a-1": confirmed}
    found.away.append(Span(201.5, 205.0, away))
    assert (check(found) == []) == kept
