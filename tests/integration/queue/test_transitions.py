"""Every transition that the tables of `shardd.states` do not have is refused, by the statements and by the database itself."""

from __future__ import annotations

import time
from itertools import permutations, product

import psycopg
import pytest

from shardd.ipc import Outcome, Receipt
from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceChange, Devices
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.jobs import Jobs
from shardd.queue.records import StateChange
from shardd.queue.sessions import SessionAdmin
from shardd.queue.settle import Claim, resolve
from shardd.states import DEVICE_TRANSITIONS, FINISHED, JOB_TRANSITIONS, DeviceState, JobState, Verdict
from tests.support.queue_rows import (
    add_devices,
    claim,
    connect,
    finish,
    insert_jobs,
    release,
    row_of,
    states,
    take_epoch,
)

RETRYABLE = {state for state, events in JOB_TRANSITIONS.items() if "retry" in events}
SESSION = "628111:1@s.whatsapp.net"


def device_states(dsn: str) -> dict[str, str]:
    with connect(dsn) as connection:
        return dict(connection.execute("SELECT id, state FROM shardd.devices").fetchall())


def add_one_in_each_state(dsn: str, **fields: str) -> None:
    for state in DeviceState:
        add_devices(dsn, state.value, state=state.value, **fields)


# ---- devices


def test_the_database_refuses_every_change_of_a_device_that_no_event_makes(dsn: str) -> None:
    add_one_in_each_state(dsn)
    statement = "UPDATE shardd.devices SET state = %s WHERE id = %s"
    with connect(dsn) as connection:
        for before, after in permutations(DeviceState, 2):
            with connection.transaction(force_rollback=True):
                if after in DEVICE_TRANSITIONS[before].values():
                    connection.execute(statement, [after.value, before.value])
                    continue
                with pytest.raises(psycopg.errors.CheckViolation) as refused, connection.transaction():
                    connection.execute(statement, [after.value, before.value])
                found = refused.value.diag
                words = f"device '{before}' is {before} and cannot become {after}"
                assert (found.message_primary, found.column_name) == (words, "state")
                assert f"From {before}, it can become one of: " in (found.message_hint or "")


def test_the_database_refuses_a_state_that_does_not_exist(dsn: str) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="device_state_is_known"):
        add_devices(dsn, "a", state="tired")
    add_devices(dsn, "a")
    with connect(dsn) as connection, pytest.raises(psycopg.errors.CheckViolation, match="cannot become tired"):
        connection.execute("UPDATE shardd.devices SET state = 'tired'")


def test_a_removed_device_comes_back_in_any_state(dsn: str) -> None:
    add_devices(dsn, "a", state="logged_out")
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.devices SET removed_at = now()")
        connection.execute("UPDATE shardd.devices SET removed_at = NULL, state = 'banned'")
    assert device_states(dsn) == {"a": "banned"}


@pytest.mark.parametrize(("before", "after"), list(product(DeviceState, DeviceState)))
async def test_a_report_changes_a_device_only_where_the_table_has_it(
    dsn: str, database: Database, before: DeviceState, after: DeviceState
) -> None:
    add_devices(dsn, "a", state=before.value)
    await Devices(database).set_states([StateChange("a", after, "why", None, time.time() + 60)])
    allowed = after in DEVICE_TRANSITIONS[before]
    assert device_states(dsn) == {"a": after.value if allowed else before.value}


async def test_only_the_devices_that_the_table_has_are_taken_over(dsn: str, database: Database) -> None:
    add_one_in_each_state(dsn)
    admin = SessionAdmin(database)
    taken = {state for state in DeviceState if await admin.take_over(state.value)}
    assert taken == {state for state, events in DEVICE_TRANSITIONS.items() if "take_over" in events}


async def test_only_the_devices_that_the_table_has_become_ready_with_new_settings(dsn: str, database: Database) -> None:
    add_one_in_each_state(dsn)
    ids = [state.value for state in DeviceState]
    await DeviceAdmin(database).change(ids, DeviceChange(fields={"settings": {"token": "new"}}))
    changed = {id_ for id_, state in device_states(dsn).items() if id_ != state}
    assert changed == {state for state, events in DEVICE_TRANSITIONS.items() if "new_settings" in events}


@pytest.mark.parametrize("state", list(DeviceState))
async def test_an_unlinked_device_gets_its_state_back_and_nothing_else_is_restored(
    dsn: str, database: Database, state: DeviceState
) -> None:
    add_devices(dsn, "a", transport="whatsapp", state=state.value, session=SESSION)
    devices, admin = DeviceAdmin(database), SessionAdmin(database)
    (device,) = await devices.find(ids=["a"])
    assert not await admin.restore(device), "its session was not taken away"
    assert await admin.unbind("a", SESSION, "unlinked")
    assert device_states(dsn) == {"a": "unpaired"}
    assert await admin.restore(device)
    assert device_states(dsn) == {"a": state.value}


# ---- jobs


def job_in(dsn: str, state: JobState) -> int:
    """A finished job in this state."""
    (job,) = insert_jobs(dsn, "a")
    with connect(dsn) as connection:
        connection.execute("SELECT shardd.end_jobs(%s, %s, NULL, NULL)", [[job], state.value])
    return job


def test_the_archive_refuses_every_change_that_no_event_makes(dsn: str) -> None:
    add_devices(dsn, "a")
    jobs = {state: job_in(dsn, state) for state in FINISHED}
    statement = "UPDATE shardd.archive SET state = %s WHERE id = %s"
    with connect(dsn) as connection:
        for before, after in permutations(FINISHED, 2):
            with connection.transaction(force_rollback=True):
                if after in JOB_TRANSITIONS[before].values():
                    connection.execute(statement, [after.value, jobs[before]])
                    continue
                words = f"job {jobs[before]} is {before} and cannot become {after}"
                with pytest.raises(psycopg.errors.CheckViolation, match=words), connection.transaction():
                    connection.execute(statement, [after.value, jobs[before]])


async def test_only_a_queued_job_is_claimed(dsn: str, database: Database) -> None:
    add_devices(dsn, "a")
    epoch, jobs = await take_epoch(database), Jobs(database)
    insert_jobs(dsn, "a", run_at="2099-01-01 00:00:00+00")
    (queued,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, epoch, "a", room=10)
    assert its_claim.id == queued
    assert await claim(jobs, epoch, "a", room=10) == [], "the one that is being sent is not claimed twice"


def stale(its_claim: Claim, **key: int) -> Claim:
    fields = {name: getattr(its_claim, name) for name in ("id", "epoch", "attempt", "token")} | key
    return Claim(**fields, device_id="a", failures=0, max_attempts=5, on_doubt="hold")


@pytest.mark.parametrize("key", [{"epoch": 77}, {"attempt": 9}, {"token": 5}])
async def test_only_the_present_claim_is_settled(dsn: str, database: Database, key: dict[str, int]) -> None:
    add_devices(dsn, "a")
    jobs = Jobs(database)
    (job,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, await take_epoch(database), "a")
    for settlement in (finish(stale(its_claim, **key)), release(stale(its_claim, **key))):
        assert (await jobs.cycle(settlement, [])).settled == set()
        assert states(dsn) == {job: JobState.SENDING}
    assert (await jobs.cycle(finish(its_claim), [])).settled == {job}
    assert (await jobs.cycle(release(its_claim), [])).settled == set()
    assert states(dsn) == {job: JobState.SENT}


async def test_a_job_that_is_being_sent_is_neither_cancelled_nor_expired(dsn: str, database: Database) -> None:
    add_devices(dsn, "a")
    jobs = Jobs(database)
    (job,) = insert_jobs(dsn, "a", expires_at="2099-01-01 00:00:00+00")
    await claim(jobs, await take_epoch(database), "a")
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE shardd.jobs SET run_at = now() - interval '2 days', expires_at = now() - interval '1 day'"
        )
    assert await JobAdmin(database).cancel_all(Traits(), "no more") == 0
    assert await jobs.expire(10) == 0
    assert states(dsn) == {job: JobState.SENDING}


@pytest.mark.parametrize("state", sorted(FINISHED))
async def test_only_the_jobs_that_the_table_has_are_retried(dsn: str, database: Database, state: JobState) -> None:
    add_devices(dsn, "a")
    job = job_in(dsn, state)
    async for _ in JobAdmin(database).retry(Traits(), [job]):
        pass
    with connect(dsn) as connection:
        back = connection.execute("SELECT * FROM shardd.bring_back(%s)", [[job]]).fetchall()
    assert back == []
    assert row_of(dsn, job)["state"] == (JobState.QUEUED if state in RETRYABLE else state)


@pytest.mark.parametrize("state", sorted(FINISHED))
async def test_only_a_doubt_is_resolved_and_only_a_sent_job_is_refused_later(
    dsn: str, database: Database, state: JobState
) -> None:
    add_devices(dsn, "a")
    jobs = Jobs(database)
    (job,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, await take_epoch(database), "a")
    await jobs.cycle(finish(its_claim, state, message_id="m"), [])
    await jobs.save_receipt(Receipt(device_id="a", message_ids=["m"], kind="failed", at=1e9, error="late"))
    after = JOB_TRANSITIONS[state].get("refused", state)
    assert row_of(dsn, job)["state"] == after
    for verdict in Verdict:
        known = await jobs.resolve_doubts([resolve(its_claim, Outcome(*its_claim.key, verdict))])
        if after is JobState.IN_DOUBT:
            assert known == [job]
            after = JOB_TRANSITIONS[after].get(verdict, after)
        else:
            assert known == []
        assert row_of(dsn, job)["state"] == after


async def test_a_held_job_is_not_promoted(dsn: str, database: Database) -> None:
    add_devices(dsn, "a")
    first, second = insert_jobs(dsn, "a", 2, order_group="g")
    assert await Jobs(database).promote_due(10) == (0, [])
    assert states(dsn) == {first: JobState.QUEUED, second: JobState.SCHEDULED}
    assert (await Jobs(database).cycle(Settlement(), [])).claimed == []
