"""However many invent tokens, all of them cost the database a question now and then, and a good one gets in with it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection

import pytest
from aiohttp.test_utils import make_mocked_request

from shardd.dashboard.api.guard import Caller, Guard
from shardd.dashboard.api.problems import BAD_TOKEN, ProblemError
from shardd.queue.api_tokens import PREFIX, ApiToken, ApiTokens, May
from shardd.queue.database import Database

CROWD = 200
MADE: tuple[tuple[str, float | None], ...] = (("good", None), ("over", 0.0))
"""(name, seconds that it lives)"""


class CountedTokens(ApiTokens):
    """Counts the questions."""

    asked = 0

    async def use(self, hashed: Collection[bytes]) -> dict[bytes, ApiToken]:
        self.asked += 1
        return await super().use(hashed)


@pytest.fixture
def tokens(database: Database) -> CountedTokens:
    return CountedTokens(database)


async def test_a_crowd_with_invented_tokens_asks_together_and_a_new_token_gets_in(tokens: CountedTokens) -> None:
    guard, numbers = Guard(tokens, lambda _: "192.0.2.1"), itertools.count()

    def ask(token: str) -> asyncio.Future[Caller]:
        request = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        return asyncio.ensure_future(guard.caller(request))

    async def is_refused(token: str, words: str) -> None:
        with pytest.raises(ProblemError, match=words) as caught:
            await ask(token)
        assert caught.value.kind is BAD_TOKEN

    made = [await tokens.add(name, May.LOOK, role=None, created_by="test", lives=lives) for name, lives in MADE]
    good, over = [one.token for one in made if one is not None]
    crowd = [ask(f"{PREFIX}{next(numbers):043}") for _ in range(CROWD)]
    caller = await ask(good)
    assert (caller.user, caller.lane) == ("good", "token good")
    assert all(isinstance(one, ProblemError) for one in await asyncio.gather(*crowd, return_exceptions=True))
    assert tokens.asked <= 2  # the first one may have gone ahead
    await is_refused(over, "has expired")
    await is_refused(over, "has expired")
    # One that worked is asked for at once, so that its end counts at once.
    before = tokens.asked
    for _ in range(3):
        await ask(good)
    assert tokens.asked == before + 3
    await tokens.remove(["good"])
    await is_refused(good, "is not known")
    await is_refused(good, "is not known")
