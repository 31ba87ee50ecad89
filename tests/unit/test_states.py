"""The state tables: consistent in themselves, and with the names in the SQL of the queue."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Formatter

import pytest

from shardd.states import (
    CAN_SEND,
    DEVICE_REMEDY,
    DEVICE_TRANSITIONS,
    FINISHED,
    JOB_TRANSITIONS,
    LIBRARY_TRANSITIONS,
    SHARD_TRANSITIONS,
    DeviceState,
    JobState,
    LibraryState,
    ShardState,
    Verdict,
)

MIGRATIONS = "\n".join(
    file.read_text(encoding="utf-8")
    for file in files("shardd.queue").joinpath("migrations").iterdir()
    if file.name.startswith("0")
)
QUERIES = {
    file.name: file.read_text(encoding="utf-8")
    for file in files("shardd.queue").joinpath("sql").iterdir()
    if file.name.endswith(".sql")
}


def words_of(pattern: str, text: str = MIGRATIONS) -> set[str]:
    """The quoted words in the first group of the only match."""
    (found,) = re.findall(pattern, text, re.DOTALL)
    words = set(re.findall(r"'([a-z_]+)'", found))
    assert words
    return words


def words_around(words: str) -> str:
    """What follows these words in the migrations, up to the next statement."""
    assert MIGRATIONS.count(words) == 1
    return MIGRATIONS.partition(words)[2].partition(";")[0]


def test_every_state_has_a_row_in_its_table() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert set(SHARD_TRANSITIONS) == set(ShardState)
    assert set(DEVICE_TRANSITIONS) == set(DeviceState)
    assert set(LIBRARY_TRANSITIONS) == set(LibraryState)
    assert set(DEVICE_REMEDY) == set(DeviceState)


@pytest.mark.parametrize("table", [JOB_TRANSITIONS, DEVICE_TRANSITIONS, SHARD_TRANSITIONS, LIBRARY_TRANSITIONS])
def test_every_transition_leads_to_a_state_of_the_table(table: dict[str, dict[str, str]]) -> None:
    for events in table.values():
        assert set(events.values()) <= set(table)


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        JOB_TRANSITIONS[JobState.SENT] = {}  # type: ignore[index]  # that it is refused is the point
    with pytest.raises(TypeError):
        SHARD_TRANSITIONS[ShardState.STOPPED]["spawn"] = ShardState.STARTING  # type: ignore[index]  # the same


def test_every_verdict_ends_a_claim() -> None:
    assert set(Verdict) <= set(JOB_TRANSITIONS[JobState.SENDING])


def test_a_sent_job_is_never_sent_again_and_a_claimed_one_is_not_cancelled() -> None:
    assert set(JOB_TRANSITIONS[JobState.SENT].values()) <= {JobState.FAILED}
    assert "retry" not in JOB_TRANSITIONS[JobState.SENT]
    assert "cancel" not in JOB_TRANSITIONS[JobState.SENDING]


@pytest.mark.parametrize("state", [JobState.EXPIRED, JobState.OPTED_OUT])
def test_what_may_not_be_sent_any_more_stays_unsent(state: JobState) -> None:
    assert not JOB_TRANSITIONS[state]


def test_live_jobs_can_be_ended_and_finished_ones_leave_only_on_somebodys_word() -> None:
    live = set(JobState) - FINISHED
    for state in live:
        assert set(JOB_TRANSITIONS[state].values()) & FINISHED, state
    for state in FINISHED - {JobState.IN_DOUBT}:
        assert set(JOB_TRANSITIONS[state]) <= {"retry", "retry_later", "refused", "delivered"}, state


def test_whatever_a_journal_proves_resolves_a_doubt() -> None:
    ends = {event for event in JOB_TRANSITIONS[JobState.SENDING] if not event.startswith("in_doubt")}
    assert ends == JOB_TRANSITIONS[JobState.IN_DOUBT].keys() - {
        "retry",
        "retry_later",
        "decide_sent",
        "decide_not_sent",
    }


def test_every_job_can_come_to_an_end_from_everywhere() -> None:
    reached = set(FINISHED)
    for _ in JobState:
        reached |= {state for state, events in JOB_TRANSITIONS.items() if set(events.values()) & reached}
    assert reached == set(JobState)


def test_a_shard_comes_back_to_running_from_everywhere_but_stopped() -> None:
    reached = {ShardState.RUNNING}
    for _ in ShardState:
        reached |= {state for state, events in SHARD_TRANSITIONS.items() if set(events.values()) & reached}
    assert reached == set(ShardState) - {ShardState.STOPPED}
    assert not SHARD_TRANSITIONS[ShardState.STOPPED]


def test_a_shard_can_be_fenced_wherever_a_worker_may_live() -> None:
    for state in (ShardState.STARTING, ShardState.RUNNING, ShardState.DRAINING):
        assert SHARD_TRANSITIONS[state]["fence"] is ShardState.WAITING


def test_devices_that_cannot_send_say_what_a_person_does() -> None:
    for state, remedy in DEVICE_REMEDY.items():
        fields = {field for _, field, _, _ in Formatter().parse(remedy) if field}
        assert fields <= {"id"}, state
    assert {DeviceState.READY} < CAN_SEND


@pytest.mark.parametrize("state", list(DeviceState))
def test_an_operator_can_pair_and_unlink_a_device_in_every_state(state: DeviceState) -> None:
    assert DEVICE_TRANSITIONS[state]["pair"] is DeviceState.READY
    assert DEVICE_TRANSITIONS[state]["unlink"] is DeviceState.UNPAIRED


@pytest.mark.parametrize("state", [DeviceState.UNPAIRED, DeviceState.LOGGED_OUT])
def test_reports_about_a_previous_session_change_no_device(state: DeviceState) -> None:
    assert not set(DEVICE_TRANSITIONS[state]) & set(DeviceState)


def test_a_report_is_named_after_its_state_and_never_makes_a_device_ready() -> None:
    for events in DEVICE_TRANSITIONS.values():
        reports = {event: state for event, state in events.items() if event in set(DeviceState)}
        assert all(event == state for event, state in reports.items())
        assert DeviceState.READY not in reports


# ---- the same words in SQL


def test_the_archive_takes_finished_states_only() -> None:
    assert words_of(r"archived_state_is_final CHECK \(state IN\s*\((.*?)\)\)") == {state.value for state in FINISHED}


def test_the_view_says_the_same_words_of_live_jobs() -> None:
    words = words_of(r"CASE WHEN j\.claimed_epoch IS NOT NULL (THEN 'sending'.*?) END AS state")
    assert words == {state.value for state in set(JobState) - FINISHED}


def test_the_view_says_that_the_same_devices_can_send() -> None:
    assert words_of(r"WHEN d\.state NOT IN \((.*?)\)") == {state.value for state in CAN_SEND}


def test_the_same_jobs_can_be_retried() -> None:
    wanted = {state.value for state, events in JOB_TRANSITIONS.items() if "retry" in events}
    assert wanted == {state.value for state, events in JOB_TRANSITIONS.items() if "retry_later" in events}
    assert words_of(r"VIEW shardd\.retries AS.*?WHERE a\.state IN \((.*?)\)") == wanted


def test_the_archive_refuses_the_same_transitions() -> None:
    allowed = re.findall(r"\('([a-z_]+)', '([a-z_]+)'\)", words_around("OLD.state, NEW.state) NOT IN"))
    wanted = {
        (before.value, after.value)
        for before in FINISHED
        for after in JOB_TRANSITIONS[before].values()
        if after in FINISHED
    }
    assert set(allowed) == wanted


def test_jobs_that_end_without_a_claim_end_in_a_state_that_the_table_knows() -> None:
    calls = r"end_jobs\(array\(.*?\), '([a-z_]+)',"
    ended = set(re.findall(calls, MIGRATIONS + "".join(QUERIES.values()), re.DOTALL))
    live = (JOB_TRANSITIONS[JobState.SCHEDULED], JOB_TRANSITIONS[JobState.QUEUED])
    assert ended == {JobState.CANCELLED, JobState.EXPIRED, JobState.OPTED_OUT}
    assert ended <= {state.value for events in live for state in events.values()}
