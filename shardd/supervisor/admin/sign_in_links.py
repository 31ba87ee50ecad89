"""Links that sign one person in to the dashboard: whoever may use the control socket gets them.

Each token has a mark that only this supervisor makes, and that the dashboard can tell: whoever invents tokens keeps the dashboard
busy, and not the supervisor.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from typing import Final

LIVES: Final = 300.0
"""Seconds in which a link must be opened."""
MOST: Final = 100
"""Unused links at a time; the oldest make room."""
_MARK: Final = 12
"""Bytes of a token's mark, which has four characters for each three of them."""


def is_marked(token: str, key: bytes) -> bool:
    """Whether it was made with this key; it may be used up."""
    end = len(token) - _MARK * 4 // 3
    return end > 0 and hmac.compare_digest(token[end:].encode(), _mark(token[:end], key).encode())


def _mark(text: str, key: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, text.encode(), hashlib.sha256)[:_MARK]).decode()


class SignInLinks:
    """Unused links, in memory: each signs in once."""

    def __init__(self) -> None:
        self.key = secrets.token_bytes(32)
        """Of the marks."""
        self._ends: dict[str, float] = {}

    def make(self) -> str:
        """A new token."""
        while len(self._ends) >= MOST:
            del self._ends[next(iter(self._ends))]
        text = secrets.token_urlsafe(20)
        token = text + _mark(text, self.key)
        self._ends[token] = time.monotonic() + LIVES
        return token

    def is_good(self, token: str) -> bool:
        """Whether the token is good, without using it up."""
        return time.monotonic() < self._ends.get(token, 0.0)

    def redeem(self, token: str) -> bool:
        """Whether the token is good; it is used up."""
        ends = self._ends.pop(token, None)
        return ends is not None and time.monotonic() < ends
