"""The statements of benchmarks that know the tables of the queue run on them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import shardd
from tests.fixtures.postgres import Cluster


@pytest.mark.parametrize("way", ["archive", "one table", "flag"])
def test_finished_jobs_are_kept_in_three_ways(way: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(shardd.__file__).parent.parent / "scripts"))
    finished_rows = import_module("benchlib.finished_rows")
    name = cluster.create_database("migrated")
    try:
        bed = finished_rows.Bed(
            SimpleNamespace(settle_down=lambda: None), cluster.dsn(name), way, finished=1000, batches=2
        )
        assert bed.measure().keys() == finished_rows.MEASURED.keys()
    finally:
        cluster.drop_database(name)


async def test_a_queue_is_filled_and_scanned(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(shardd.__file__).parent.parent / "scripts"))
    scan_bench = import_module("benchlib.scan_bench")
    name = cluster.create_database("migrated")
    try:
        scan_bench.fill(SimpleNamespace(connect=cluster.superuser), cluster.dsn(name), 100, 500)
        async with scan_bench.Bed(cluster.dsn(name)) as bed:
            assert (await bed.measure(100)).keys() == scan_bench.MEASURED.keys()
    finally:
        cluster.drop_database(name)
