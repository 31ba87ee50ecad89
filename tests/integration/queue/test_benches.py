"""The statements of benchmarks that know the tables of the queue run on them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from benchlib import dashboard_fill, finished_rows, scan_bench
from benchlib.whatsapp_fleet import Fleet

from shardd.queue.columns import GIVEN
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from tests.fixtures.postgres import Cluster
from tests.support.queue_rows import add_devices, claim, connect, finish, insert_jobs, release, take_epoch

LIVE = "SELECT to_jsonb(j) - '{id,token,created_at,created_xid}'::text[] FROM shardd.jobs j ORDER BY reference"
"""Live jobs, without what differs whenever one is inserted."""


@pytest.mark.parametrize("way", ["archive", "one table", "flag"])
def test_finished_jobs_are_kept_in_three_ways(way: str, cluster: Cluster) -> None:
    name = cluster.create_database("migrated")
    try:
        servers = cast(Any, SimpleNamespace(settle_down=lambda: None))
        bed = finished_rows.Bed(servers, cluster.dsn(name), way, finished=1000, batches=2)
        assert bed.measure().keys() == finished_rows.MEASURED.keys()
    finally:
        cluster.drop_database(name)


async def test_a_queue_is_filled_and_scanned(cluster: Cluster) -> None:
    name = cluster.create_database("migrated")
    try:
        servers = cast(Any, SimpleNamespace(connect=cluster.superuser))
        scan_bench.fill(servers, cluster.dsn(name), 100, 500)
        async with scan_bench.Bed(cluster.dsn(name)) as bed:
            assert (await bed.measure(100)).keys() == scan_bench.MEASURED.keys()
    finally:
        cluster.drop_database(name)


async def test_claims_that_were_given_back_are_counted_apart_from_attempts_that_failed(
    database: Database, dsn: str
) -> None:
    jobs = Jobs(database)
    add_devices(dsn, "a")
    epoch = await take_epoch(database)
    insert_jobs(dsn, "a")
    (claimed,) = await claim(jobs, epoch, "a")
    for failures in (0, 1, 1):  # given back, failed, given back
        await jobs.cycle(release(claimed, failures=failures), [])
        (claimed,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(claimed), [])
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as producer:
        fleet = Fleet(cast(Any, None), producer, cast(Any, None))
        assert (await fleet.tries(), await fleet.failures()) == (3, 1)
        ((device, ((began, ended),)),) = (await fleet.claims()).items()
        assert device == "a"
        assert began < ended


def test_a_database_is_filled_as_triggers_would_have_it(cluster: Cluster) -> None:
    sizes = dashboard_fill.Sizes(devices=60, finished=3000, live=600, opt_outs=50, campaigns=20)
    name = cluster.create_database("migrated")
    try:
        with connect(cluster.dsn(name)) as owner:
            dashboard_fill.fill(owner, sizes)
            assert owner.execute("SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'O'").fetchall() == []
            filled = owner.execute(LIVE).fetchall()
            assert len(filled) == sizes.live
            # As a producer inserts them.
            owner.execute("CREATE TEMP TABLE given AS SELECT * FROM shardd.jobs")
            owner.execute("DELETE FROM shardd.jobs")
            owner.execute("DELETE FROM shardd.dedupe_keys")
            columns = ", ".join(GIVEN)
            owner.execute(f"INSERT INTO shardd.jobs ({columns}) SELECT {columns} FROM given ORDER BY id".encode())
            assert owner.execute(LIVE).fetchall() == filled
            (job,) = owner.execute("SELECT min(id) FROM shardd.archive WHERE state = 'failed'").fetchall()[0]
            assert owner.execute("SELECT * FROM shardd.retry_jobs(array[%s::bigint])", [job]).fetchall() == [
                (job, None)
            ]
    finally:
        cluster.drop_database(name)
