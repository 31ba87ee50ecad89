"""Who signs in while the database does not answer is let in at once, and is in the audit log when it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shardd.dashboard import late_rows
from shardd.dashboard.late_rows import LateRows
from shardd.errors import SharddError
from shardd.queue.acts import DONE, NewAct
from shardd.queue.database import Database
from tests.fixtures.postgres import Cluster
from tests.support.dashboard_here import dashboard_here
from tests.support.queue_rows import connect
from tests.support.visitor import visitor_of

PATIENCE = 60.0
NEVER = 3600.0
ADA = NewAct("ada", "password", "::1", "sign in", "", "", DONE, "here")


def recorded(dsn: str) -> list[tuple[str, str, str]]:
    with connect(dsn) as connection:
        return connection.execute("SELECT who, act, result FROM shardd.acts ORDER BY id").fetchall()


async def test_whoever_signs_in_waits_for_no_database(dsn: str, postgres: Cluster, tmp_path: Path) -> None:
    async with dashboard_here(dsn, tmp_path, patience=NEVER) as site, visitor_of(site) as ada, visitor_of(site) as bob:
        with postgres.frozen():
            async with asyncio.timeout(PATIENCE):
                await ada.sign_in("ada")
                assert (await bob.try_password("bob", "wrong")).status == 401
                await bob.sign_in("bob")
        async with asyncio.timeout(PATIENCE):
            await bob.request("POST", "/sign-out")
            while len(rows := recorded(dsn)) < 4:  # noqa: ASYNC110  # nothing announces a row
                await asyncio.sleep(0.05)
    assert rows == [
        ("ada", "sign in", "done"),
        ("bob", "sign in", "wrong password"),
        ("bob", "sign in", "done"),
        ("bob", "sign out", "done"),
    ]


async def test_a_row_that_had_to_wait_has_the_time_when_it_happened(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_rows, "PATIENCE", PATIENCE)
    lost: list[SharddError] = []
    rows = LateRows(database, lambda _, error: lost.append(error))
    with connect(dsn) as owner:
        owner.execute("ALTER TABLE shardd.acts RENAME TO away")
        adding = asyncio.create_task(rows.add(ADA))
        await asyncio.sleep(0)
        await rows.add(ADA)  # the second one waits for nothing
        ((renamed,),) = owner.execute("SELECT clock_timestamp()").fetchall()
        assert not adding.done()
        owner.execute("ALTER TABLE shardd.away RENAME TO acts")
        await adding
        await rows.close()
        found = owner.execute("SELECT at < %s, who FROM shardd.acts", [renamed]).fetchall()
    assert found == [(True, "ada")] * 2
    assert not lost


async def test_what_is_lost_is_told(dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []
    rows = LateRows(database, lambda new, error: lost.append(f"{new.who}: {error}"))
    monkeypatch.setattr(late_rows, "PATIENCE", PATIENCE)
    with connect(dsn) as owner:
        owner.execute("DROP TABLE shardd.acts CASCADE")
    monkeypatch.setattr(late_rows, "LASTS", 0.0)
    await rows.add(ADA)  # tried, and given up
    monkeypatch.setattr(late_rows, "LASTS", NEVER)
    monkeypatch.setattr(late_rows, "PATIENCE", 0.0)
    monkeypatch.setattr(late_rows, "ENDS", 0.0)
    monkeypatch.setattr(late_rows, "MOST", 2)
    for _ in range(3):
        await rows.add(ADA)
    await rows.close()
    first, second, *others = lost
    assert "acts" in first
    assert second == "ada: 2 others wait for the database"
    assert others == ["ada: the dashboard ended before the database answered"] * 2
