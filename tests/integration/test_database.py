"""The pool against a real server: what it returns, its deadlines, restarts of the server, and its words for what is wrong."""

from __future__ import annotations

from shardd.queue.database import Database


async def test_runs_named_queries(database: Database) -> None:
    assert await database.fetch_all("is_answering") == [(1,)]
    assert await database.fetch_dicts("is_answering") == [{"?column?": 1}]
