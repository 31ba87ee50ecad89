"""Inserts of programs that have the same dedupe keys in another order."""

from __future__ import annotations

import asyncio

import psycopg
from psycopg.conninfo import make_conninfo

from shardd.queue.database import Database
from shardd.queue.sending import Sending
from tests.fixtures.postgres import Cluster

WAITS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def job(key: str) -> dict[str, str | None]:
    return {"device_id": "d1", "recipient": "+4915112345678", "body": "x", "dedupe_key": key}


async def test_a_deadlock_with_another_insert_is_no_error(postgres: Cluster, dbname: str) -> None:
    dsn = postgres.dsn(dbname, "postgres")
    # Whoever waits this long first looks for a deadlock, and is the one that ends.
    mine, others = (make_conninfo(dsn, options=f"-c deadlock_timeout={time}") for time in ("2s", "1h"))
    with psycopg.connect(others) as other:
        other.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d1', 'sandbox')")
        other.commit()
        insert = (
            "INSERT INTO shardd.jobs (device_id, recipient, body, dedupe_key) VALUES ('d1', '+4915112345678', 'x', %s)"
        )
        other.execute(insert, ["b"])
        async with Database(mine) as database:
            inserting = asyncio.create_task(Sending(database, None).insert([job("a"), job("b"), job("c")]))
            with psycopg.connect(others, autocommit=True) as watching:
                while not watching.execute(WAITS).fetchone():  # noqa: ASYNC110  # another session's state
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(other.execute, insert, ["a"])
            other.commit()
            assert [one.duplicate for one in await inserting] == [True, True, False]
