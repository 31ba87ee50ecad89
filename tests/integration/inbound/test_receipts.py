"""Receipts on their way into the database: none that a platform was told arrived is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from shardd.ipc import Receipt
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.supervisor.inbound.receipt_spool import ReceiptSpool
from shardd.supervisor.inbound.receipts import Receipts
from tests.support.queue_rows import connect

FIRST = Receipt("p1", ["wamid.1"], "failed", 5.5)
SECOND = Receipt("p1", ["wamid.2"], "read", 6.5)
BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_a_stop_during_a_write_loses_none(dsn: str, database: Database, tmp_path: Path) -> None:
    receipts = Receipts(Jobs(database), ReceiptSpool(tmp_path))
    await receipts.keep([FIRST, SECOND])
    with psycopg.connect(dsn) as other:
        other.execute("LOCK TABLE shardd.archive")
        running = asyncio.create_task(receipts.run())
        with connect(dsn) as watching:
            async with asyncio.timeout(30):
                while not watching.execute(BLOCKED).fetchone():  # noqa: ASYNC110 - rows send no event
                    await asyncio.sleep(0.02)
        stopping = asyncio.create_task(receipts.stop())
        await running
        other.rollback()
    await stopping
    assert ReceiptSpool(tmp_path).load() == [FIRST, SECOND], "no row has them yet"
