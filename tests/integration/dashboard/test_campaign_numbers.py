"""The numbers of campaigns between two counts, with a real database: no job counts twice, and none is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from shardd.dashboard.campaign_numbers import CampaignNumbers
from shardd.dashboard.supervisor_client import SupervisorClient
from shardd.queue.database import Database
from shardd.queue.events import Events
from tests.support.queue_rows import add_devices, connect, insert_jobs


def end(connection: psycopg.Connection[Any], job: int, state: str) -> None:
    connection.execute("SELECT shardd.end_jobs(array[%s::bigint], %s, 'why', NULL)", [job, state])


async def test_jobs_that_end_around_a_count_are_counted_once(dsn: str, database: Database, tmp_path: Path) -> None:
    add_devices(dsn, "a")
    numbers = CampaignNumbers(database, SupervisorClient(tmp_path / "nobody"))
    events = Events(database)
    began = await events.end()

    def counted() -> dict[str, int]:
        answer = numbers.totals.last("spring")
        assert answer is not None
        assert answer.value is not None
        (share,) = answer.value.shares
        states = ("queued", "scheduled", "sending", "sent", "failed", "in_doubt", "cancelled")
        return {state: number for state in states if (number := getattr(share, state))}

    with connect(dsn) as owner:
        owner.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
        before, within, after, doubt = insert_jobs(owner, "a", 4, campaign="spring")
        end(owner, before, "failed")
        end(owner, doubt, "in_doubt")
        with psycopg.connect(dsn) as program:
            end(program, within, "cancelled")  # before the count, by its time
            assert await numbers.totals.wait("spring", 30)
            assert counted() == {"queued": 2, "failed": 1, "in_doubt": 1}
        end(owner, after, "failed")
        numbers.heard(await events.read(began, 100))
        assert counted() == {"failed": 2, "in_doubt": 1, "cancelled": 1}

        heard = await events.end()
        good = numbers.totals.last("spring")
        assert good is not None
        assert good.is_good
        owner.execute("UPDATE shardd.archive SET state = 'sent' WHERE id = %s", [doubt])
        numbers.heard(await events.read(heard, 100))
        assert counted() == {"failed": 2, "in_doubt": 1, "cancelled": 1}
        assert not good.is_good, "which end it had before is not told"
        assert await numbers.totals.wait("spring", 30)
        assert counted() == {"failed": 2, "sent": 1, "cancelled": 1}
    await numbers.close()
