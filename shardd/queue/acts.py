"""The audit log: what people did through the dashboard. The statements of `sql/acts.sql` as typed calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shardd.queue.database import Statements
from shardd.visible import visible

MOST: Final = 500
"""Characters that are kept of each text."""
DONE: Final = "done"
"""The result of an act that was carried out."""


@dataclass(frozen=True, slots=True)
class Act:
    """A row of shardd.acts."""

    id: int
    at: datetime
    who: str
    how: str
    address: str
    act: str
    target: str
    detail: str
    result: str
    node: str


class Acts(Statements):
    """Raises DatabaseError."""

    async def record(
        self, *, who: str, how: str, address: str, act: str, target: str, detail: str, result: str, node: str
    ) -> None:
        """Add one."""
        texts = {"who": who, "how": how, "address": address, "act": act, "target": target, "detail": detail}
        shown = {name: visible(text)[:MOST] for name, text in {**texts, "result": result, "node": node}.items()}
        await self._database.execute("record_act", shown)

    async def newest(self, most: int, *, before: int | None = None, who: str | None = None) -> list[Act]:
        """The newest ones, newest first; `before`: only those with a smaller id."""
        return await self._database.rows(Act, "newest_acts", {"most": most, "before": before, "who": who})
