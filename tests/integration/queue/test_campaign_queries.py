"""The effect of a campaign's state on claims, and the end of a cancelled campaign's jobs, with a real database."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shardd.queue.campaign_counts import CampaignCounts
from shardd.queue.campaigns import CampaignAdmin, CampaignState
from shardd.queue.database import Database
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.queries import Changes
from shardd.supervisor.cluster.cleanup import CANCELLED_CHUNK as CHUNK
from shardd.supervisor.cluster.cleanup import end_cancelled
from tests.support.queue_rows import (
    add_campaigns,
    add_devices,
    claim,
    connect,
    insert_jobs,
    release,
    row_of,
    states,
    take_epoch,
)

LANE = "spring/marketing"


@pytest.fixture
async def epoch(dsn: str, database: Database) -> int:
    """Of a lease; with the device `a` and the campaign `spring`."""
    add_devices(dsn, "a")
    add_campaigns(dsn, "spring")
    return await take_epoch(database)


@pytest.mark.parametrize("state", ["paused", "cancelled"])
async def test_a_claim_looks_at_its_campaign(dsn: str, database: Database, epoch: int, state: str) -> None:
    jobs, campaigns = Jobs(database), CampaignAdmin(database)
    insert_jobs(dsn, "a", 3, campaign="spring")
    with connect(dsn) as pausing, pausing.transaction():
        pausing.execute("UPDATE shardd.campaigns SET state = %s", [state])
        # Not committed yet: nobody is kept waiting, and the claim goes by what holds now.
        assert len(await claim(jobs, epoch, "a", lane=LANE)) == 1
    assert await claim(jobs, epoch, "a", lane=LANE) == []
    resumed = await campaigns.set_state(["spring"], CampaignState.RUNNING)
    assert resumed == Changes({"spring"} if state == "paused" else set(), set())
    assert len(await claim(jobs, epoch, "a", lane=LANE)) == len(resumed.changed)


async def test_jobs_of_cancelled_campaigns_end_once_and_in_chunks(dsn: str, database: Database, epoch: int) -> None:
    add_campaigns(dsn, "summer")
    jobs, campaigns = Jobs(database), CampaignAdmin(database)
    many = 2 * CHUNK + 500
    spring = insert_jobs(dsn, "a", many, campaign="spring", reference="r")
    later = insert_jobs(dsn, "a", 10, campaign="spring", run_at="2099-01-01")
    summer, none = insert_jobs(dsn, "a", 5, campaign="summer"), insert_jobs(dsn, "a", 5)
    (held,) = await claim(jobs, epoch, "a", lane=LANE)
    assert await end_cancelled(database) == 0
    assert await campaigns.cancel(["spring"], "enough") == {"spring"}
    assert await campaigns.cancel(["spring"], "again") == set()

    # Two nodes at once.
    ended = await asyncio.gather(end_cancelled(database), end_cancelled(database))
    while sum(ended) < many + 10 - 1:
        again = await end_cancelled(database)
        assert again, "a job was passed over for ever"
        ended.append(again)
    assert sum(ended) == many + 10 - 1
    found = states(dsn)
    assert found.pop(held.id) == "sending"
    assert Counter(found[job] for job in (*spring, *later) if job != held.id) == {"cancelled": many + 10 - 1}
    assert {found[job] for job in (*summer, *none)} == {"queued"}
    row = row_of(dsn, spring[1])
    assert (row["error"], row["error_class"], row["reference"]) == (
        "its campaign was cancelled: enough",
        "cancelled",
        "r",
    )

    # What was in a worker's hand comes back unsent: it ends with the next look.
    await jobs.cycle(release(held), [])
    assert row_of(dsn, held.id)["waits_for"] == "nothing: its campaign was cancelled"
    assert await end_cancelled(database) == 1
    assert await end_cancelled(database) == 0
    assert states(dsn)[held.id] == "cancelled"


async def test_jobs_of_a_paused_campaign_are_counted_and_raise_no_alarm(
    dsn: str, database: Database, epoch: int
) -> None:
    counts = Counts(database)
    add_campaigns(dsn, "summer", "empty")
    insert_jobs(dsn, "a", 3, campaign="spring")
    insert_jobs(dsn, "a", 2, campaign="summer")
    assert await counts.campaigns() == {"running_campaigns": 2, "paused_campaigns": 0}
    assert (await counts.depth())["paused_jobs"] == 0
    assert (await counts.depth())["oldest_due_age"] is not None
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.campaigns SET state = 'paused' WHERE id IN ('spring', 'empty')")
    assert await counts.campaigns() == {"running_campaigns": 1, "paused_campaigns": 1}
    assert (await counts.depth())["paused_jobs"] == 3
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.campaigns SET state = 'cancelled' WHERE id = 'summer'")
    assert await counts.campaigns() == {"running_campaigns": 0, "paused_campaigns": 1}
    depth = await counts.depth()
    assert (depth["queued"], depth["paused_jobs"], depth["oldest_due_age"]) == (5, 3, None)


async def test_a_campaign_is_finished_while_it_runs_and_has_no_job_left(dsn: str, database: Database) -> None:
    """In lists, on its page, and beside its numbers."""
    campaigns, counts = CampaignAdmin(database), CampaignCounts(database)
    add_devices(dsn, "a")
    add_campaigns(dsn, "a", "spring", "zebra")  # in the order of the index
    (first, second) = insert_jobs(dsn, "a", 2, campaign="spring")
    insert_jobs(dsn, "a", 1, campaign="zebra")

    async def shown(name: str = "spring") -> str:
        title, details = await campaigns.title(name), await counts.details(name, "UTC")
        assert title is not None
        assert details is not None
        (found,) = await campaigns.find([name])
        paged = {one.id: one.shown_state for one in await campaigns.page(10)}
        listed = {one.id: one.shown_state for one in await campaigns.newest(10)}
        states = {title.shown_state, details.row.shown_state, found.shown_state, paged[name], listed[name]}
        (state,) = states
        return state

    assert [await shown(name) for name in ("a", "spring", "zebra")] == ["running"] * 3
    with connect(dsn) as owner:
        owner.execute("SELECT shardd.end_jobs(%s, 'failed', 'why', NULL)", [[first]])
        assert await shown() == "running"
        owner.execute("SELECT shardd.end_jobs(%s, 'expired', 'why', NULL)", [[second]])
        assert [await shown(name) for name in ("a", "spring", "zebra")] == ["running", "finished", "running"]
        for state in ("paused", "cancelled"):
            owner.execute("UPDATE shardd.campaigns SET state = %s WHERE id = 'spring'", [state])
            assert await shown() == state
        owner.execute("UPDATE shardd.campaigns SET state = 'running' WHERE id = 'spring'")
    insert_jobs(dsn, "a", 1, campaign="spring", run_at="2099-01-01")
    assert await shown() == "running"
