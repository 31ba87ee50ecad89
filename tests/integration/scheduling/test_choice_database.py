"""The scheduler's choices with a real PostgreSQL: a few hundred random histories through the statements of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shardd.queue.database import Database
from tests.support.choice.history import History, Step, make_book
from tests.support.choice.real_queue import RealQueue


async def connected(dsn: str) -> Database:
    database = Database(dsn, application_name="shardd/test")
    await database.open()
    return database


def play_all(dsn: str, examples: int, words: Mapping[str, int], **scene: bool) -> None:
    """Histories of these words, each on an empty database."""
    steps = st.tuples(
        st.sampled_from(["nothing", *(word for word, weight in words.items() for _ in range(weight))]),
        st.integers(0, 10**9),
    )
    with asyncio.Runner() as runner:
        database = runner.run(connected(dsn))

        async def play(number: int, history: list[Step]) -> None:
            book = make_book(number, **scene)
            queue = RealQueue(book, database)
            await queue.begin()
            await History(book, queue, number, timeless=True).run(history)

        @settings(
            max_examples=examples, derandomize=True, database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            phases=[Phase.generate],  # a shorter example is found in memory, and sooner
        )  # fmt: skip
        @given(st.integers(0, 10**9), st.lists(steps, min_size=20, max_size=30))
        def histories(number: int, history: list[Step]) -> None:
            runner.run(play(number, history))

        try:
            histories()
        finally:
            runner.run(database.close())


def test_campaigns_and_opt_outs(dsn: str) -> None:
    words = {
        "insert": 6,
        "opt_out": 1,
        "campaign": 3,
        "tell": 1,
        "turn": 3,
        "ask": 3,
        "end": 4,
        "send": 4,
        "promote": 1,
    }
    play_all(dsn, 120, words)


def test_devices_and_restarts(dsn: str) -> None:
    words = {
        "insert": 5,
        "device": 2,
        "shard": 1,
        "turn": 2,
        "end": 3,
        "send": 6,
        "wait": 2,
        "restart": 1,
        "promote": 1,
    }
    play_all(dsn, 100, words)


def test_groups(dsn: str) -> None:
    words = {"insert": 5, "opt_out": 1, "device": 2, "share_out": 5, "turn": 3, "end": 3, "send": 4, "restart": 1}
    play_all(dsn, 100, words, groups=True)
