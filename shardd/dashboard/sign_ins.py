"""Who is signed in: browsers with a random cookie, in memory, until they sign out or have been idle for long.

The cookie is new with each sign-in, so that nobody can plant one before. A second token, which only our own pages know, goes with
every request that changes something: another site's page can make a browser send the cookie, and cannot read this.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

IDLE: Final = 12 * 3600.0
"""Seconds without a request after which a sign-in ends."""
MOST: Final = 1000
"""Sign-ins at a time; the one that was idle for longest makes room."""


@dataclass(slots=True)
class SignIn:
    """One browser."""

    user: str
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    used_at: float = 0.0

    def wrote(self, token: str) -> bool:
        """Whether a request that carries this token comes from a page of this sign-in."""
        return hmac.compare_digest(token.encode(), self.form_token.encode())


class SignIns:
    """All that are signed in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_cookie: dict[str, SignIn] = {}

    def begin(self, user: str) -> SignIn:
        """A new one."""
        self._drop_idle()
        if len(self._by_cookie) >= MOST:
            self.end(min(self._by_cookie.values(), key=lambda one: one.used_at))
        made = SignIn(user, used_at=self._clock())
        self._by_cookie[made.cookie] = made
        return made

    def of(self, cookie: str | None) -> SignIn | None:
        """The one with this cookie, which is not idle any more; None: nobody's."""
        found = self._by_cookie.get(cookie or "")
        if found is None:
            return None
        now = self._clock()
        if now > found.used_at + IDLE:
            self.end(found)
            return None
        found.used_at = now
        return found

    def end(self, one: SignIn) -> None:
        """Sign out."""
        self._by_cookie.pop(one.cookie, None)

    def _drop_idle(self) -> None:
        now = self._clock()
        for one in [one for one in self._by_cookie.values() if now > one.used_at + IDLE]:
            self.end(one)
