"""How much an account may send: a steady rate, and rests that its platform asked for or that its failures suggest.

No clock of its own: times are seconds of the caller's monotonic clock. Memory only: after a restart the platform says it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardd.backoff import ceiling
from shardd.errors import ErrorClass

TROUBLE_FIRST, TROUBLE_CAP = 5.0, 600.0
"""Seconds that an account rests after the first and after many answers in a row that left a message in doubt: while its platform
is down, each further message would only be one more in doubt."""
MAX_ACCOUNTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a rest."""

    seconds: float
    why: str
    error_class: ErrorClass


@dataclass(slots=True)
class _Account:
    next_at: float = 0.0
    rests_until: float = 0.0
    why: str = ""
    error_class: ErrorClass = ErrorClass.UNKNOWN
    troubles: int = 0


class AccountLimits:
    """Of one transport in one worker."""

    def __init__(self, rate: float) -> None:
        """`rate`: messages per second and account; 0: no limit."""
        self._spacing = 1 / rate if rate > 0 else 0.0
        self._accounts: dict[str, _Account] = {}

    def rest_of(self, account: str, now: float) -> Rest | None:
        """The rest that the account must still take."""
        known = self._accounts.get(account)
        if known is None or known.rests_until <= now:
            return None
        return Rest(known.rests_until - now, known.why, known.error_class)

    def wait_of(self, account: str, now: float) -> float:
        """Seconds until the account's next message may leave."""
        return max(0.0, self._of(account).next_at - now) if self._spacing else 0.0

    def take(self, account: str, now: float) -> float:
        """Take the account's next turn; gives the seconds until it comes."""
        if not self._spacing:
            return 0.0
        known = self._of(account)
        turn = max(now, known.next_at)
        known.next_at = turn + self._spacing
        return turn - now

    def rest(self, account: str, seconds: float, why: str, error_class: ErrorClass, now: float) -> None:
        """The platform asked for a rest. A longer one that is running already stays."""
        known = self._of(account)
        if now + seconds > known.rests_until:
            known.rests_until, known.why, known.error_class = now + seconds, why, error_class

    def troubled(self, account: str, why: str, now: float, retry_after: float | None = None) -> None:
        """The platform left a message in doubt. `retry_after`: seconds that it asked for besides."""
        known = self._of(account)
        known.troubles += 1
        rest = max(ceiling(known.troubles, TROUBLE_FIRST, TROUBLE_CAP), retry_after or 0.0)
        self.rest(account, rest, why, ErrorClass.SERVER, now)

    def answered(self, account: str) -> None:
        """The platform said clearly what it did with a message."""
        if known := self._accounts.get(account):
            known.troubles = 0

    def _of(self, account: str) -> _Account:
        known = self._accounts.get(account)
        if known is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
            known = self._accounts[account] = _Account()
        return known
