"""The numbers of a campaign, counted in pages: each job once, in the state and on the device that it has."""

from __future__ import annotations

from collections import Counter

import psycopg
import pytest

from shardd.queue import campaign_counts
from shardd.queue.campaign_counts import CampaignCounts
from shardd.queue.campaigns import CampaignDetails, CampaignRow, DeviceShare
from shardd.queue.database import Database
from shardd.states import JobState
from tests.support.queue_rows import add_campaigns, add_devices, add_group, connect, insert_jobs

END = "SELECT shardd.end_jobs(%s::bigint[], %s, 'x', 'cancelled')"


@pytest.fixture
def spring(dsn: str) -> psycopg.Connection[None]:
    """A campaign with jobs in several states, on two devices and in a pool; and another one."""
    add_devices(dsn, "a", "b")
    add_group(dsn, "pool", "a", "b")
    add_campaigns(dsn, "spring", "summer")
    with connect(dsn) as owner:
        owner.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'b'")
        for device, jobs in (("a", 9), ("b", 4)):
            insert_jobs(owner, device, jobs, campaign="spring")
            insert_jobs(owner, device, 2, campaign="spring", run_at="2099-01-01")
            insert_jobs(owner, device, 3, campaign="summer")
        owner.execute(
            "INSERT INTO shardd.jobs (device_group, recipient, body, campaign)"
            " SELECT 'pool', '+4915112345678', 'x', 'spring' FROM generate_series(1, 5)"
        )
        waiting = "SELECT id FROM shardd.jobs WHERE campaign = 'spring' AND device_id = 'a' ORDER BY id LIMIT %s"
        for state, jobs in (("cancelled", 4), ("expired", 2)):  # those of a statement end at the same moment
            owner.execute(END, [[row[0] for row in owner.execute(waiting, [jobs])], state])
        yield owner


def jobs_of(share: DeviceShare) -> dict[str, int]:
    return {state.value: number for state in JobState if (number := getattr(share, state))}


@pytest.mark.parametrize("page", [1, 2, 3, 4, 5000])
async def test_each_job_is_counted_once_however_large_a_page_is(
    database: Database, spring: psycopg.Connection[None], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(campaign_counts, "PAGE", page)
    counts = CampaignCounts(database)
    found = await counts.details("spring", "UTC")
    assert found is not None
    assert {share.device_id: jobs_of(share) for share in found.shares} == {
        "a": {"queued": 3, "scheduled": 2, "cancelled": 4, "expired": 2},
        "b": {"queued": 4, "scheduled": 2},
        None: {"queued": 5},
    }
    assert {share.device_id: share.device_state for share in found.shares} == {"a": "ready", "b": "paused", None: None}
    assert [(pool.device_group, pool.jobs, pool.devices, pool.able) for pool in found.pools] == [("pool", 5, 2, 1)]
    assert isinstance(found.row, CampaignRow)
    assert found.row.live == 16
    together = await counts.totals("spring")
    assert together is not None
    (share,) = together.shares
    assert jobs_of(share) == _sum(found)
    assert share.next_due == min(one.next_due for one in found.shares if one.next_due)


def _sum(details: CampaignDetails) -> dict[str, int]:
    total: Counter[str] = Counter()
    for share in details.shares:
        total.update(jobs_of(share))
    return dict(total)


async def test_a_campaign_that_is_not_there_has_no_numbers(database: Database) -> None:
    assert await CampaignCounts(database).details("spring", "UTC") is None
    assert await CampaignCounts(database).totals("spring") is None
