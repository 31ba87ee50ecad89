"""Acts that are not one transaction: what is known of them while they go on, and at their end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from shardd.errors import DatabaseError, UsageError
from shardd.queue import act_log
from shardd.queue.act_log import ActLog
from shardd.queue.acts import LOST_AFTER, ActFilter, Acts, NewAct
from shardd.queue.database import Database
from tests.support.queue_rows import connect


@dataclass(frozen=True)
class Ada:
    user: str = "ada"
    how: str = "command"


class Log(ActLog):
    """Remembers what it could not write."""

    missed: NewAct | None = None

    def _missed(self, new: NewAct, error: DatabaseError) -> None:
        self.missed = new


async def results(database: Database) -> list[tuple[str, bool]]:
    """(result, unfinished), oldest first."""
    return [(one.result, one.unfinished) for one in reversed((await Acts(database).newest(9, ActFilter())).acts)]


async def test_while_an_act_goes_on_it_is_not_taken_for_lost(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(act_log, "SEEN_EVERY", 0.001)
    with connect(dsn) as owner:
        async with ActLog(database, "alpha").under_way(Ada(), "here", "retry", "jobs") as here:
            owner.execute("UPDATE shardd.acts_under_way SET seen_at = now() - %s * interval '1s'", [2 * LOST_AFTER])
            while (await Acts(database).unfinished(9)) != []:  # until its next sign
                pass
            here.detail = "retried 2 jobs"
    assert await results(database) == [("begun", False), ("done", False)]


async def test_what_broke_an_act_off_is_its_result(database: Database) -> None:
    log = ActLog(database, "alpha")
    for error, result in (
        (UsageError("there is no room"), "there is no room"),
        (ZeroDivisionError(), "a defect of shardd: ZeroDivisionError"),
        (KeyboardInterrupt(), "interrupted"),
    ):
        with pytest.raises(type(error)):
            async with log.under_way(Ada(), "here", "retry", "jobs"):
                raise error
        assert (await results(database))[-1] == (result, False)


async def test_of_an_act_whose_end_cannot_be_written_nothing_is_known(database: Database, dsn: str) -> None:
    log = Log(database, "alpha")
    with connect(dsn) as owner:
        async with log.under_way(Ada(), "here", "retry", "jobs"):
            owner.execute("ALTER TABLE shardd.acts ADD CONSTRAINT full_up CHECK (false) NOT VALID")
        assert log.missed is not None
        assert log.missed.result == "done"
        owner.execute("UPDATE shardd.acts_under_way SET seen_at = seen_at - %s * interval '1s'", [LOST_AFTER + 1])
    assert await results(database) == [("begun", True)]
    assert [one.target for one in await Acts(database).unfinished(9)] == ["jobs"]
