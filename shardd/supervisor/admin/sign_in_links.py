"""Links that sign one person in to the dashboard: whoever may use the control socket gets them."""

from __future__ import annotations

import secrets
import time
from typing import Final

LIVES: Final = 300.0
"""Seconds in which a link must be opened."""
MOST: Final = 100
"""Unused links at a time; the oldest make room."""


class SignInLinks:
    """Unused links, in memory: each signs in once."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def make(self) -> str:
        """A new token."""
        while len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        token = secrets.token_urlsafe(32)
        self._ends[token] = time.monotonic() + LIVES
        return token

    def is_good(self, token: str) -> bool:
        """Whether the token is good, without using it up."""
        return time.monotonic() < self._ends.get(token, 0.0)

    def redeem(self, token: str) -> bool:
        """Whether the token is good; it is used up."""
        ends = self._ends.pop(token, None)
        return ends is not None and time.monotonic() < ends
