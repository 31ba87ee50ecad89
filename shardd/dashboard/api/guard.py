"""Who asks: the token of a request, and what it may.

Tokens cannot be guessed, so nobody who tries has to wait. But each that did not work lately costs a question to the database: all
of them together ask one at a time, of which a few fit into a second. So however many somebody invents, they cost no more, and one
that is good gets in with the next question.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from shardd.bounded import remember
from shardd.dashboard.api.problems import BAD_TOKEN, NO_TOKEN, NOT_ALLOWED, TOKEN_IN_ADDRESS, ProblemError
from shardd.dashboard.fair_database import LANE
from shardd.queue.api_tokens import FORM, PREFIX, ApiToken, ApiTokens, May, digest

SPACING: Final = 0.1
"""Seconds between two questions about tokens that are not known to be good."""
MOST: Final = 10_000
"""Tokens that are remembered; the one that was longest without a request makes room."""
CHECKS: Final = "tokens"
"""The lane of these questions, so that none waits behind what its token asks for slowly."""
SCHEME: Final = "bearer"
UNKNOWN: Final = "is not known: it was removed, or mistyped"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; for the audit log, too."""

    token: ApiToken
    address: str

    @property
    def user(self) -> str:
        """The token's name."""
        return self.token.name

    @property
    def how(self) -> str:
        """As in the audit log."""
        return "token"

    @property
    def lane(self) -> str:
        """As whose its requests count."""
        return f"token {self.token.name}"

    @property
    def sends(self) -> bool:
        """Whether it sees what its role sees, and nothing else."""
        return self.token.may is May.SEND


class Guard:
    """Finds out who asks. Every call raises ProblemError and DatabaseError."""

    def __init__(self, tokens: ApiTokens, address: Callable[[web.Request], str]) -> None:
        """`address`: where a request comes from, also if a trusted proxy forwards it."""
        self._tokens = tokens
        self._address = address
        self._strangers = _Strangers(tokens)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        """Those that worked lately."""

    async def caller(self, request: web.Request) -> Caller:
        """Who asks."""
        refuse_in_address(request)
        token = _token_of(request)
        if not FORM.fullmatch(token):
            raise _bad(UNKNOWN)
        hashed = digest(token)
        found = await (self._use(hashed) if hashed in self._good else self._strangers.find(hashed))
        if found is None or found.expired:
            self._good.pop(hashed, None)
            raise _bad(UNKNOWN if found is None else "has expired")
        remember(self._good, hashed, None, MOST)
        caller = Caller(found, self._address(request))
        LANE.set(caller.lane)
        return caller

    async def is_still_good(self, request: web.Request) -> bool:
        """Whether the token of a request that has waited still works."""
        found = await self._use(digest(_token_of(request)))
        return found is not None and not found.expired

    async def _use(self, hashed: bytes) -> ApiToken | None:
        before = LANE.set(CHECKS)
        try:
            return (await self._tokens.use([hashed])).get(hashed)
        finally:
            LANE.reset(before)


class _Strangers:
    """Tokens that are not known to be good: whoever has one waits for the next question about all of them."""

    def __init__(self, tokens: ApiTokens) -> None:
        self._tokens = tokens
        self._wanted: set[bytes] = set()
        """What the next question is about."""
        self._next: asyncio.Task[Mapping[bytes, ApiToken]] | None = None
        self._turn = asyncio.Lock()
        self._began = -math.inf

    async def find(self, hashed: bytes) -> ApiToken | None:
        """Whose it is, by a question that is asked after this call. Raises DatabaseError."""
        if self._next is None:
            self._wanted = set()
            self._next = asyncio.create_task(self._ask(self._wanted))
        self._wanted.add(hashed)
        return (await asyncio.shield(self._next)).get(hashed)

    async def _ask(self, wanted: set[bytes]) -> Mapping[bytes, ApiToken]:
        LANE.set(CHECKS)
        async with self._turn:
            await asyncio.sleep(max(0.0, self._began + SPACING - time.monotonic()))
            self._began = time.monotonic()
            self._next = None
            return await self._tokens.use(wanted)


def _bad(why: str) -> ProblemError:
    return ProblemError(BAD_TOKEN, f"the token {why}; an operator makes another with: shardd token add")


def allow(caller: Caller, may: frozenset[May]) -> None:
    """Raises ProblemError for a token that is for something else."""
    what = caller.token.may
    if what not in may:
        needed = " or ".join(one.value for one in May if one in may)
        raise ProblemError(NOT_ALLOWED, f"token {caller.user} may {what.value}, and this is for one that may {needed}")


def refuse_in_address(request: web.Request) -> None:
    """Raises ProblemError for a token in the address, also in addition to a good one."""
    named = {"token", "access_token", "api_key"} & {name.lower() for name in request.query}
    if named or (PREFIX in request.path_qs and FORM.search(request.path_qs)):
        raise ProblemError(
            TOKEN_IN_ADDRESS,
            "the address has a token in it, and addresses are logged: send it as the header Authorization, and replace it "
            "(shardd token remove, shardd token add), because others may have read it",
        )


def _token_of(request: web.Request) -> str:
    header = request.headers.getall("Authorization", [])
    scheme, _, token = (header[0] if len(header) == 1 else "").partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise ProblemError(
            NO_TOKEN, "there is no token: send the header Authorization: Bearer shardd_…, see: shardd guide api"
        )
    return token.strip()
