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
    """Why an account may not send, and until when."""

    until: float
    why: str
    error_class: ErrorClass


_NONE: Final = Backoff(0.0, "", ErrorClass.UNKNOWN)


@dataclass(slots=True)
class _Account:
    next_at: float = 0.0
    backoff: Backoff = _NONE
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
        return known.backoff if known is not None and known.backoff.until > now else None

    def wait_of(self, account: str, now: float) -> float:
        """Seconds until the account's next message may leave."""
        return max(0.0, self._of(account).next_at - now)

    def take(self, account: str, now: float) -> float:
        """Reserve the account's next send time; returns the seconds until then."""
        wait = self.wait_of(account, now)
        self._of(account).next_at = now + wait + self._spacing
        return wait

    def back_off(self, account: str, seconds: float, why: str, error_class: ErrorClass, now: float) -> None:
        """The platform demands a backoff. A longer one in progress stays."""
        known = self._of(account)
        if now + seconds > known.backoff.until:
            known.backoff = Backoff(now + seconds, why, error_class)

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
