"""An error at the commit of a cycle is reported with the server's text, and affects only that cycle."""

from __future__ import annotations

import psycopg
import pytest

from shardd.errors import DatabaseError, RefusedDataError
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from tests.fixtures.crowded import connect, end_sessions
from tests.fixtures.postgres import Cluster
from tests.support.queue_rows import add_devices, claim, insert_jobs, states, take_epoch


def fail_at_commit(dsn: str, code: str) -> None:
    """From now on a transaction that changes a job fails, and not before its commit."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS "  # type: ignore[call-overload]  # a code of ours
            f"$$ BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = '{code}'; END $$"
        )
        owner.execute(
            "CREATE CONSTRAINT TRIGGER fail AFTER UPDATE ON shardd.jobs DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.fail()"
        )


@pytest.mark.parametrize(("code", "refused"), [("53100", False), ("23514", True)])
async def test_an_error_of_the_commit_is_told(dsn: str, database: Database, code: str, refused: bool) -> None:
    add_devices(dsn, "a")
    epoch = await take_epoch(database)
    insert_jobs(dsn, "a")
    fail_at_commit(dsn, code)
    jobs = Jobs(database)
    for _ in range(8):  # more than there are connections in the pool, and often enough that statements are prepared
        with pytest.raises(DatabaseError, match="not today") as caught:
            await claim(jobs, epoch, "a")
        assert isinstance(caught.value, RefusedDataError) is refused
    assert list(states(dsn).values()) == ["queued"]
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("DROP TRIGGER fail ON shardd.jobs")
    assert len(await claim(jobs, epoch, "a")) == 1


async def test_a_full_queue_of_notifications_is_no_refusal_of_a_job(crowded: Cluster, crowded_dbname: str) -> None:
    """One that became full between the look at it and the commit: the same work will succeed later."""
    listener = connect(crowded, crowded_dbname)
    for statement in ("LISTEN zzz", "BEGIN", "SELECT 1"):
        listener.execute(statement)
    async with Database(crowded.dsn(crowded_dbname)) as database:
        with pytest.raises(DatabaseError, match="no room in its queue of notifications") as caught:
            async with database.connection() as connection:
                await connection.execute(
                    "SELECT pg_notify('zzz', lpad(i::text, 7900, 'x')) FROM generate_series(1, 100) i"
                )
    assert not isinstance(caught.value, RefusedDataError)
    listener.close()
    end_sessions(crowded, "stranger")
