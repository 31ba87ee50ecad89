"""Which transactions a statement saw, as PostgreSQL writes it: `pg_current_snapshot()`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_WRITTEN: Final = re.compile("[0-9]{1,18}:[0-9]{1,18}:([0-9]{1,18}(,[0-9]{1,18})*)?")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All transactions before `next`, except those that were open."""

    next: int
    open: frozenset[int]

    @classmethod
    def read(cls, text: str) -> Snapshot:
        """Raises ValueError for what PostgreSQL would refuse."""
        if not _WRITTEN.fullmatch(text):
            raise ValueError(f"no snapshot: {text}")
        oldest, following, *still_open = map(int, re.findall("[0-9]+", text))
        if not 0 < oldest <= following or still_open != sorted(still_open):
            raise ValueError(f"no snapshot: {text}")
        if any(not oldest <= one < following for one in still_open):
            raise ValueError(f"no snapshot: {text}")
        return cls(following, frozenset(still_open))

    def sees(self, transaction: int) -> bool:
        """Whether what it wrote is visible."""
        return transaction < self.next and transaction not in self.open
