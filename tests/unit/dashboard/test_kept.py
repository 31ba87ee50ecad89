"""What is shown of an answer that the database gave a while ago."""

from __future__ import annotations

import asyncio

from shardd.dashboard.kept import Kept

PATIENCE = 60.0


async def test_an_answer_that_is_not_good_any_more_is_awaited_anew() -> None:
    answers = iter([1, 2])

    async def ask(_: str) -> int:
        return next(answers)

    kept = Kept(ask, asyncio.Lock())
    first = await kept.wait("spring", PATIENCE)
    assert first is not None
    assert (first.value, first.is_good) == (1, True)
    assert await kept.wait("spring", PATIENCE) is first
    kept.outdate("spring")
    assert not first.is_good
    second = await kept.wait("spring", PATIENCE)
    assert second is not None
    assert (second.value, second.is_good) == (2, True)


async def test_without_a_new_answer_in_time_the_old_one_is_shown_as_such() -> None:
    may_answer = asyncio.Event()
    may_answer.set()

    async def ask(_: str) -> int:
        await may_answer.wait()
        return 1

    kept = Kept(ask, asyncio.Lock())
    first = await kept.wait("spring", PATIENCE)
    kept.outdate()
    may_answer.clear()
    assert await kept.wait("spring", 0.01) is first
    assert first is not None
    assert not first.is_good
    assert await kept.wait("autumn", 0.01) is None
    await kept.close()
