"""Who is signed in: browsers with a random cookie, in memory, until they sign out, have been idle for long, or a day is over.

The cookie is new with each sign-in, so that nobody can plant one before. A second token, which only our own pages know, goes with
every request that changes something: another site's page can make a browser send the cookie, and cannot read this.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

IDLE: Final = 12 * 3600.0
"""Seconds without a request after which a sign-in ends."""
LASTS: Final = 24 * 3600.0
"""Seconds after which it ends however much it is used."""
MOST: Final = 1000
"""Sign-ins at a time; the one that was idle for longest makes room."""
MOST_OF_USER: Final = 50
"""Those of one user, whose own longest idle one makes room: nobody signs out others by signing in often."""


class Role(StrEnum):
    """What somebody may do."""

    LOOK = "look"
    OPERATE = "operate"


class How(StrEnum):
    """How somebody signed in."""

    LINK = "link"
    PASSWORD = "password"  # noqa: S105  # a word of the audit log
    PROXY = "proxy"


@dataclass(slots=True)
class SignIn:
    """One browser; of those whom the operator's proxy names, one person."""

    user: str
    how: How
    role: Role
    address: str
    """From where it began."""
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    number: int = 0
    """Of all that this process began."""
    began_at: float = 0.0
    used_at: float = 0.0

    @property
    def may_operate(self) -> bool:
        """Whether they may do something, and not only look."""
        return self.role is Role.OPERATE

    @property
    def lane(self) -> str:
        """As whose its requests count. Whoever has a link is nobody that is known: each is somebody else."""
        return f"sign-in {self.number}" if self.how is How.LINK else f"user {self.user}"

    def wrote(self, token: str) -> bool:
        """Whether a request that carries this token comes from a page of this sign-in."""
        return hmac.compare_digest(token.encode(errors="surrogateescape"), self.form_token.encode())


class SignIns:
    """All that are signed in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_cookie: dict[str, SignIn] = {}
        self._begun = 0

    def begin(self, user: str, how: How, role: Role, address: str) -> SignIn:
        """A new one."""
        now = self._clock()
        self._begun += 1
        made = SignIn(user, how, role, address, number=self._begun, began_at=now, used_at=now)
        if len(own := self.of_user(made)) >= MOST_OF_USER:
            self.end(min(own, key=lambda one: one.used_at))
        if len(self._by_cookie) >= MOST:
            self.end(min(self._by_cookie.values(), key=lambda one: one.used_at))
        self._by_cookie[made.cookie] = made
        return made

    def of(self, cookie: str | None) -> SignIn | None:
        """The one of a browser that sends this cookie, unless it is over; None: nobody's."""
        found = self._by_cookie.get(cookie or "")
        return None if found is None or found.how is How.PROXY else self._used(found)

    def of_proxy(self, user: str) -> SignIn | None:
        """That of a user whom the proxy names; None: there is none yet. All browsers of that user share it."""
        found = next((one for one in self._by_cookie.values() if one.how is How.PROXY and one.user == user), None)
        return None if found is None else self._used(found)

    def of_user(self, one: SignIn) -> list[SignIn]:
        """All that are of the same user, the one that was used last first."""
        self._drop_over()
        same = [other for other in self._by_cookie.values() if other.user == one.user and other.how is one.how]
        return sorted(same, key=lambda other: -other.used_at)

    def lasts(self, one: SignIn) -> bool:
        """Whether it has not ended. To ask is no use of it."""
        return self._by_cookie.get(one.cookie) is one and not self._is_over(one)

    def end(self, one: SignIn) -> None:
        """Sign out."""
        self._by_cookie.pop(one.cookie, None)

    def end_those(self, ends: Callable[[SignIn], bool]) -> None:
        """Sign some out, such as those whose user is gone."""
        for one in [one for one in self._by_cookie.values() if ends(one)]:
            self.end(one)

    def idle(self, one: SignIn) -> float:
        """Seconds since it was used."""
        return self._clock() - one.used_at

    def age(self, one: SignIn) -> float:
        """Seconds since it began."""
        return self._clock() - one.began_at

    def _used(self, one: SignIn) -> SignIn | None:
        if self._is_over(one):
            self.end(one)
            return None
        one.used_at = self._clock()
        return one

    def _is_over(self, one: SignIn) -> bool:
        now = self._clock()
        return now > one.used_at + IDLE or now > one.began_at + LASTS

    def _drop_over(self) -> None:
        self.end_those(self._is_over)
