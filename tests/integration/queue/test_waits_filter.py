"""What operators read of the jobs that wait: found by the cause that the status counts, and told only what can be done."""

from __future__ import annotations

import pytest

from shardd.queue.bulk_actions import OBSTACLES
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.job_search import JobSearch, Question
from shardd.queue.jobs import Counts
from shardd.queue.lane_waits import LaneWaits
from shardd.states import JobState
from tests.support.queue_rows import add_campaigns, add_devices, add_group, connect, insert_jobs


async def test_the_jobs_of_each_cause_are_those_that_the_status_counts(dsn: str, database: Database) -> None:
    add_devices(dsn, "well", "slow", "errs")
    add_devices(dsn, "paused", paused_at="2026-01-01", paused_why="holiday")
    add_devices(dsn, "lost", state="logged_out", reason="by its phone")
    add_devices(dsn, "new", state="restricted")
    add_group(dsn, "pool", "well")
    add_campaigns(dsn, "spring", "summer")
    with connect(dsn) as owner:
        owner.execute("UPDATE shardd.campaigns SET state = 'paused', why = 'typo' WHERE id = 'spring'")
        owner.execute(
            "INSERT INTO shardd.jobs (device_group, recipient, body) SELECT 'pool', '+4915112345678', 'x'"
            " FROM generate_series(1, 4)"
        )
    insert_jobs(dsn, "well", 3)
    ended = insert_jobs(dsn, "well", 2)
    with connect(dsn) as owner:
        owner.execute("SELECT shardd.end_jobs(%s, 'failed', 'why', NULL)", [ended])
    for device, jobs in (("well", 0), ("slow", 5), ("errs", 1), ("paused", 2), ("lost", 6), ("new", 2)):
        insert_jobs(dsn, device, jobs)
        insert_jobs(dsn, device, 1, campaign="spring")
        insert_jobs(dsn, device, 1, campaign="summer")
        insert_jobs(dsn, device, 2, run_at="2099-01-01")
    waits = {
        ("slow", "/marketing"): ("its daily limit", 600.0),
        ("errs", "/marketing"): ("a backoff of its device (refused)", 600.0),
        ("errs", "summer/marketing"): ("a backoff of its device (refused)", 600.0),
        ("well", "/marketing"): ("its gap", -600.0),
    }
    await LaneWaits(database).save(waits)
    counted = (await Counts(database).depth())["waits"]
    assert counted == {
        "its turn": 3 + 2 + 3,
        "its device: logged_out": 7,
        "its campaign: paused": 6,
        "its daily limit": 5,
        "a device of its group": 4,
        "its device: paused": 3,
        "a backoff of its device": 2,
    }
    search = JobSearch(database)
    for cause, number in counted.items():
        for state in (None, JobState.QUEUED):
            page = await search.page(Question(traits=Traits(state=state), waits_for=cause), 100)
            assert (len(page.jobs), page.older) == (number, None), cause
            words = cause.replace(": logged_out", ": logged_out, by its phone")
            assert all((job.waits_for or "").startswith(words) for job in page.jobs)
            assert {job.state for job in page.jobs} == {"queued"}
    found = await JobAdmin(database).newest(100, Traits(), waits_for="its daily limit")
    assert [job.device_id for job in found] == ["slow"] * 5
    assert (await search.page(Question(waits_for="its time"), 100)).jobs == []
    assert (await search.page(Question(traits=Traits(state=JobState.SENT), waits_for="its turn"), 100)).jobs == []


@pytest.mark.parametrize(
    ("obstacle", "statement"),
    [
        ("campaign", "UPDATE shardd.campaigns SET state = 'cancelled'"),
        ("device", "UPDATE shardd.devices SET removed_at = now()"),
        ("opted_out", "INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567')"),
    ],
)
async def test_an_operator_is_told_to_retry_a_doubt_only_where_that_can_be_done(
    dsn: str, database: Database, obstacle: str, statement: str
) -> None:
    add_devices(dsn, "a")
    add_campaigns(dsn, "spring")
    here, lost = insert_jobs(dsn, "a", 2, campaign="spring")
    (failed,) = insert_jobs(dsn, "a", 1, campaign="spring")
    admin = JobAdmin(database)

    async def told() -> dict[int, str | None]:
        listed = {job.id: job.waits_for for job in await admin.newest(10, Traits())}
        shown = [await admin.show(job) for job in listed]
        assert {job.id: job.waits_for for job in shown if job is not None} == listed
        return listed

    with connect(dsn) as owner:
        for job, state, error_class in (
            (here, "in_doubt", "worker"),
            (lost, "in_doubt", "node"),
            (failed, "failed", None),
        ):
            owner.execute("SELECT shardd.end_jobs(%s, %s, 'why', %s)", [[job], state, error_class])
        resolve = "a person: shardd job resolve"
        node = f"the state folder of its node, or {resolve}"
        assert await told() == {here: f"{resolve} or retry", lost: f"{node} or retry", failed: None}
        owner.execute(statement)
        assert {some.obstacle for some in await admin.count_retries(Traits(), [here])} == {obstacle} <= OBSTACLES.keys()
        assert await told() == {here: resolve, lost: node, failed: None}
        # Producers may not know what keeps it.
        outcomes = owner.execute("SELECT id, waits_for FROM shardd.outcomes").fetchall()
        assert dict(outcomes) == {here: resolve, lost: node, failed: None}
