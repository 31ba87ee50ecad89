"""Who asks: the token of a request, and what it may.

Tokens cannot be guessed. But each that is wrong costs a question to the database, so an address that sent many is answered
without one for a while; tokens that worked lately are looked up all the same. One that did not work lately, such as that of a
program which nobody has told of its end, is asked for once in a while only, and counts once: it keeps no other program out.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from shardd.bounded import remember
from shardd.dashboard.api.problems import (
    BAD_TOKEN,
    NO_TOKEN,
    NOT_ALLOWED,
    TOKEN_IN_ADDRESS,
    TOO_MANY_FAILURES,
    ProblemError,
)
from shardd.dashboard.misses import WINDOW, Misses
from shardd.queue.api_tokens import FORM, PREFIX, ApiToken, ApiTokens, May, digest

FAILURES: Final = 20
"""Wrong tokens of one address in a minute, each counted once, after which it waits."""
MOST: Final = 10_000
"""Tokens that are remembered; the one that was longest without a request makes room."""
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
    def sends(self) -> bool:
        """Whether it sees what its role sees, and nothing else."""
        return self.token.may is May.SEND


class Guard:
    """Finds out who asks. Every call raises ProblemError and DatabaseError."""

    def __init__(
        self, tokens: ApiTokens, address: Callable[[web.Request], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`address`: where a request comes from, also if a trusted proxy forwards it."""
        self._tokens = tokens
        self._address = address
        self._misses = Misses(FAILURES, clock)
        self._clock = clock
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        """When they were found to be wrong, and why."""

    async def caller(self, request: web.Request) -> Caller:
        """Who asks."""
        refuse_in_address(request)
        token = _token_of(request)
        address = self._address(request)
        hashed = digest(token)
        if not FORM.fullmatch(token):
            raise _bad(UNKNOWN)
        since, why = self._bad.get(hashed, (-math.inf, ""))
        if self._clock() < since + WINDOW:
            raise _bad(why)
        if hashed not in self._good:
            self._check_misses(address)
        found = await self._tokens.use(token)
        if found is None or found.expired:
            self._good.pop(hashed, None)
            self._misses.add(address)
            why = UNKNOWN if found is None else "has expired"
            remember(self._bad, hashed, (self._clock(), why), MOST)
            raise _bad(why)
        remember(self._good, hashed, None, MOST)
        return Caller(found, address)

    async def is_still_good(self, request: web.Request) -> bool:
        """Whether the token of a request that has waited still works."""
        found = await self._tokens.use(_token_of(request))
        return found is not None and not found.expired

    def _check_misses(self, address: str) -> None:
        if (wait := self._misses.wait(address)) > 0:
            words = f"{FAILURES} wrong tokens came from {address}: try again in {wait:.0f} s"
            problem = ProblemError(TOO_MANY_FAILURES, words)
            problem.headers["Retry-After"] = f"{max(1.0, wait):.0f}"
            raise problem


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
