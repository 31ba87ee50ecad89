"""The effect of an outcome on its job: every verdict under every policy."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.ipc import Outcome
from shardd.queue.settle import MOST_DEATHS, RESTRICTED_WAIT, Claim, Finish, JobBackoff, Release, settle
from shardd.states import FINISHED, JOB_TRANSITIONS, DeviceState, JobState, Verdict

NOW = 1_800_000_000.0
BACKOFF = JobBackoff(first=5, cap=600)


def claim(failures: int = 0, max_attempts: int = 5, on_doubt: str = "hold") -> Claim:
    return Claim(7, 3, 2, 9, "a", failures, max_attempts, on_doubt)


def outcome(verdict: Verdict, **more: object) -> Outcome:
    return Outcome(7, 3, 2, 9, verdict.value, **more)  # type: ignore[arg-type]  # each test knows its fields


def decide(verdict: Verdict, a_claim: Claim | None = None, **more: object) -> Finish | Release:
    return settle(a_claim or claim(), outcome(verdict, **more), BACKOFF, NOW)


def state_of(decision: Finish | Release) -> JobState:
    if isinstance(decision, Finish):
        return decision.state
    return JobState.QUEUED if decision.due_at is None else JobState.SCHEDULED


@given(
    verdict=st.sampled_from(Verdict),
    max_attempts=st.integers(1, 100),
    failures=st.integers(0, 99),
    on_doubt=st.sampled_from(["hold", "retry"]),
    device_state=st.none() | st.sampled_from([state.value for state in DeviceState]),
    retry_after=st.none() | st.floats(0, 1e6),
)
def test_every_outcome_leads_where_the_table_says(
    *,
    verdict: Verdict,
    max_attempts: int,
    failures: int,
    on_doubt: str,
    device_state: str | None,
    retry_after: float | None,
) -> None:
    given_claim = claim(min(failures, max_attempts - 1), max_attempts, on_doubt)
    why = {"error": "why", "error_class": "recipient"}
    decision = decide(verdict, given_claim, device_state=device_state, retry_after=retry_after, **why)
    events = {str(verdict)}
    if verdict is Verdict.TRANSIENT:
        events = {"transient", "transient_last"}
    elif verdict is Verdict.IN_DOUBT:
        events = {"in_doubt", "in_doubt_retry"}
    elif verdict is Verdict.UNAVAILABLE:
        events = {"unavailable", "restricted"}
    assert state_of(decision) in {JOB_TRANSITIONS[JobState.SENDING][event] for event in events}
    assert decision.claim is given_claim
    assert decision.error == "why"
    assert decision.error_class == (None if verdict is Verdict.SENT else "recipient")
    # Only what was tried and failed uses up an attempt, and never more than one.
    used = decision.failures - given_claim.failures
    assert used == (verdict in (Verdict.TRANSIENT, Verdict.PERMANENT, Verdict.IN_DOUBT))
    if isinstance(decision, Release):
        assert decision.failures < max_attempts
        assert decision.due_at is None or decision.due_at >= NOW
    else:
        assert decision.state in FINISHED


def test_sent() -> None:
    decision = decide(Verdict.SENT, message_id="3EB0")
    assert decision == Finish(claim(), JobState.SENT, 0, "3EB0", None)


def test_permanent_fails_at_once() -> None:
    assert decide(Verdict.PERMANENT, error="no such number") == Finish(
        claim(), JobState.FAILED, 1, None, "no such number"
    )


@pytest.mark.parametrize(("failures", "low", "high"), [(0, 2.5, 5), (1, 5, 10), (20, 300, 600)])
def test_transient_waits_longer_each_time(failures: int, low: float, high: float) -> None:
    decision = decide(Verdict.TRANSIENT, claim(failures, 100))
    assert isinstance(decision, Release)
    assert decision.due_at is not None
    assert low <= decision.due_at - NOW <= high


def test_transient_waits_as_long_as_the_other_side_asked() -> None:
    decision = decide(Verdict.TRANSIENT, retry_after=3000.0)
    assert isinstance(decision, Release)
    assert decision.due_at == NOW + 3000


def test_the_last_transient_fails() -> None:
    assert decide(Verdict.TRANSIENT, claim(4)) == Finish(claim(4), JobState.FAILED, 5, None, None)
    assert state_of(decide(Verdict.TRANSIENT, claim(0, 1))) is JobState.FAILED


@pytest.mark.parametrize("verdict", [Verdict.RETURNED, Verdict.UNAVAILABLE])
def test_what_could_not_be_tried_returns_at_once_and_keeps_its_attempts(verdict: Verdict) -> None:
    decision = decide(verdict, claim(4), error="gone")
    assert decision == Release(claim(4), 4, None, "gone")


def test_unavailable_waits_for_the_device_and_not_for_a_time() -> None:
    decision = decide(Verdict.UNAVAILABLE, retry_after=60.0, device_state="logged_out")
    assert isinstance(decision, Release)
    assert decision.due_at is None


@pytest.mark.parametrize(("retry_after", "wait"), [(None, RESTRICTED_WAIT), (90.0, 90.0), (0.0, 0.0)])
def test_a_new_contact_waits_for_the_end_of_the_restriction(retry_after: float | None, wait: float) -> None:
    decision = decide(Verdict.UNAVAILABLE, device_state="restricted", retry_after=retry_after)
    assert decision == Release(claim(), 0, NOW + wait, None)


def test_a_doubt_is_held_unless_the_producer_asked_for_a_retry() -> None:
    assert decide(Verdict.IN_DOUBT) == Finish(claim(), JobState.IN_DOUBT, 1, None, None)
    again = decide(Verdict.IN_DOUBT, claim(on_doubt="retry"))
    assert isinstance(again, Release)
    assert state_of(again) is JobState.SCHEDULED
    assert again.failures == 1


def test_a_doubt_about_the_last_attempt_is_held() -> None:
    assert state_of(decide(Verdict.IN_DOUBT, claim(4, on_doubt="retry"))) is JobState.IN_DOUBT


@pytest.mark.parametrize(
    ("verdict", "state"), [(Verdict.EXPIRED, JobState.EXPIRED), (Verdict.OPTED_OUT, JobState.OPTED_OUT)]
)
def test_what_may_not_be_sent_any_more_ends_and_uses_up_no_attempt(verdict: Verdict, state: JobState) -> None:
    assert decide(verdict, claim(4), error="why") == Finish(claim(4), state, 4, None, "why")


def test_a_claim_knows_its_campaign() -> None:
    lanes = {"/reply": "", "spring/marketing": "spring", "a.b:c@d/service": "a.b:c@d"}
    assert {lane: Claim(7, 3, 2, 9, "a", 0, 5, "hold", lane=lane).campaign for lane in lanes} == lanes


def test_an_unknown_verdict_is_a_defect() -> None:
    with pytest.raises(KeyError, match="delivered"):
        settle(claim(), Outcome(7, 3, 2, 9, "delivered"), BACKOFF, NOW)


# ---- deaths of workers


def suspect(deaths: int, **more: object) -> Claim:
    return dataclasses.replace(claim(**more), worker_deaths=deaths)  # type: ignore[arg-type]  # each test knows its fields


def test_a_death_is_counted_and_uses_up_no_attempt() -> None:
    decision = decide(Verdict.RETURNED, suspect(1), suspect=True, error="it died")
    assert decision == Release(suspect(1), 0, None, "it died", None, worker_deaths=2)
    assert decide(Verdict.RETURNED, suspect(1)) == Release(suspect(1), 0, None, None, None, worker_deaths=1)


def test_deaths_of_whole_nodes_end_a_job_at_last() -> None:
    assert state_of(decide(Verdict.RETURNED, suspect(MOST_DEATHS - 2), suspect=True)) is JobState.QUEUED
    decision = decide(Verdict.RETURNED, suspect(MOST_DEATHS - 1), suspect=True, error="killed", error_class="worker")
    assert state_of(decision) is JobState.FAILED
    assert decision.error == f"{MOST_DEATHS} workers died while they prepared it; the last: killed"
    assert decision.error_class == "worker"


def test_what_may_have_left_is_not_sent_again_by_a_job_that_was_alone_when_it_ended_its_worker() -> None:
    died = {"error": "it died", "suspect": True}
    assert state_of(decide(Verdict.IN_DOUBT, suspect(1, on_doubt="retry"), **died)) is JobState.SCHEDULED
    assert state_of(decide(Verdict.IN_DOUBT, suspect(2, on_doubt="retry"), **died)) is JobState.IN_DOUBT
    assert state_of(decide(Verdict.IN_DOUBT, suspect(2, on_doubt="retry"), error="no answer")) is JobState.SCHEDULED
