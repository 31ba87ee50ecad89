"""The supervisor's connections: waiting for a locked table delays neither leases nor the queue."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from shardd.config import load_config
from shardd.errors import DatabaseError
from shardd.queue.jobs import Jobs
from shardd.supervisor.pools import open_pools
from tests.support.queue_rows import add_devices, find_work, insert_jobs

HANG = 30.0


async def test_work_that_takes_every_connection_stops_neither_leases_nor_queue(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "shards.yaml"
    file.write_text(yaml.safe_dump({"state_dir": str(tmp_path), "database": {"dsn": dsn, "connect_timeout": "1s"}}))
    add_devices(dsn, "a")
    insert_jobs(dsn, "a")
    async with asyncio.timeout(HANG), open_pools(dsn, load_config(file)) as pools, AsyncExitStack() as taken:
        for _ in range(pools.general.pool.max_size):
            await taken.enter_async_context(pools.general.connection(timeout=HANG))
        with pytest.raises(DatabaseError, match="no connection became free"):
            await pools.general.value("newest_id")
        assert [device for device, _, _ in await find_work(Jobs(pools.queue))] == ["a"]
        for _ in range(pools.queue.pool.max_size):
            await taken.enter_async_context(pools.queue.connection(timeout=HANG))
        assert await pools.leases.value("newest_id") == 1
