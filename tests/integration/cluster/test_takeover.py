"""The start of a node whose earlier run has not ended yet."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shardd.errors import JournalHeldError
from shardd.journal import Journal, journal_path
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.settle import JobBackoff
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.dispatch import recovery
from shardd.supervisor.dispatch.in_flight import PoisonJobs
from shardd.supervisor.dispatch.memory import SentMemory
from shardd.supervisor.dispatch.recovery import Recovery
from shardd.supervisor.takeover import TakeOver
from tests.support.queue_rows import connect, identity, memory_of, take_epoch

STATE = "0" * 32


def leases(dsn: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(
            "SELECT shard, epoch, node_id, incarnation FROM shardd.leases JOIN shardd.nodes ON id = node_id"
        ).fetchall()


async def test_while_a_worker_of_the_earlier_run_lives_its_leases_stay(
    dsn: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its clients open: once its lease is released, another node may take the shard and open them, too."""
    monkeypatch.setattr(recovery, "ORPHAN_WAIT", 0.2)
    earlier, now = uuid4(), uuid4()
    await take_epoch(database, incarnation=earlier)
    before = leases(dsn)
    journal = Journal.open(journal_path(tmp_path, 0), state=STATE, shard=0, fsync=False)
    memory = memory_of(database, "node-a")
    keeper = LeaseKeeper(
        database, node=identity("node-a"), incarnation=now, shards=8, ttl=600.0, margin=5.0, memory=memory
    )
    orphans = Recovery(
        tmp_path, STATE, Jobs(database), incarnation=now, earlier=[earlier], shards=8,
        backoff=lambda: JobBackoff(first=5, cap=600), grace=60.0, zone_of=lambda _: UTC, poison=PoisonJobs(),
        memory=SentMemory(tmp_path),
    )  # fmt: skip
    later_steps: Any = None
    start = TakeOver(keeper, later_steps, orphans, *[later_steps] * 5)
    with pytest.raises(JournalHeldError):
        await start.run()
    assert leases(dsn) == before
    journal.close()
