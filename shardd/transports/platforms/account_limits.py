"""How much an account may send: a steady rate, and backoffs that its platform demands or that its failures suggest.

Times are seconds of the caller's monotonic clock. Memory only: after a restart the platform demands them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardd.backoff import ceiling
from shardd.errors import ErrorClass

DOUBT_FIRST, DOUBT_CAP = 5.0, 600.0
"""Backoff in seconds after the first, and after many consecutive messages in doubt: while a platform is down, each further
message would only be one more in doubt."""
MAX_ACCOUNTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Backoff:
    """What is left of a backoff."""

    seconds: float
    why: str
    error_class: ErrorClass


@dataclass(slots=True)
class _Account:
    next_at: float = 0.0
    until: float = 0.0
    why: str = ""
    error_class: ErrorClass = ErrorClass.UNKNOWN
    doubts: int = 0


class AccountLimits:
    """Of one transport in one worker."""

    def __init__(self, rate: float) -> None:
        """`rate`: messages per second and account; 0: no limit."""
        self._spacing = 1 / rate if rate > 0 else 0.0
        self._accounts: dict[str, _Account] = {}

    def backoff_of(self, account: str, now: float) -> Backoff | None:
        """The backoff that the account is in."""
        known = self._accounts.get(account)
        if known is None or known.until <= now:
            return None
        return Backoff(known.until - now, known.why, known.error_class)

    def wait_of(self, account: str, now: float) -> float:
        """Seconds until the account's next message may leave."""
        return max(0.0, self._of(account).next_at - now) if self._spacing else 0.0

    def take(self, account: str, now: float) -> float:
        """Reserve the account's next send time; returns the seconds until then."""
        if not self._spacing:
            return 0.0
        known = self._of(account)
        at = max(now, known.next_at)
        known.next_at = at + self._spacing
        return at - now

    def back_off(self, account: str, seconds: float, why: str, error_class: ErrorClass, now: float) -> None:
        """The platform demands a backoff. A longer one in progress stays."""
        known = self._of(account)
        if now + seconds > known.until:
            known.until, known.why, known.error_class = now + seconds, why, error_class

    def in_doubt(self, account: str, why: str, now: float, retry_after: float | None = None) -> None:
        """The platform left a message in doubt. `retry_after`: seconds that it demands."""
        known = self._of(account)
        known.doubts += 1
        backoff = max(ceiling(known.doubts, DOUBT_FIRST, DOUBT_CAP), retry_after or 0.0)
        self.back_off(account, backoff, why, ErrorClass.SERVER, now)

    def answered(self, account: str) -> None:
        """The platform gave a clear verdict on a message."""
        if known := self._accounts.get(account):
            known.doubts = 0

    def _of(self, account: str) -> _Account:
        known = self._accounts.get(account)
        if known is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
            known = self._accounts[account] = _Account()
        return known
