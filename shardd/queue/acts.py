"""The audit log: what people did through the dashboard. The statements of `sql/acts.sql` as typed calls."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from shardd.queue.queries import Statements
from shardd.visible import visible

MOST: Final = 500
"""Characters that are kept of each text."""
DONE: Final = "done"
"""The result of an act that was carried out."""
BEGUN: Final = "begun"
"""The result of an act that may take long, before it is carried out: what came of it is another act, unless the process died."""
_MORE: Final = " and {number:,} more"
_IDS: Final = re.compile(r"(, [0-9]+)+")


@dataclass(frozen=True, slots=True)
class NewAct:
    """What is recorded of an act."""

    who: str
    how: str
    address: str
    act: str
    target: str
    detail: str
    result: str
    node: str


@dataclass(frozen=True, slots=True)
class Act(NewAct):
    """A row of shardd.acts."""

    id: int
    at: datetime


class Acts(Statements):
    """Raises DatabaseError."""

    async def record(self, new: NewAct) -> None:
        """Add one."""
        await self._database.execute(
            "record_act", {name: shortened(visible(text)) for name, text in asdict(new).items()}
        )

    async def newest(self, most: int, *, before: int | None = None, who: str | None = None) -> list[Act]:
        """The newest ones, newest first; `before`: only those with a smaller id."""
        return await self._database.rows(Act, "newest_acts", {"most": most, "before": before, "who": who})


def shortened(text: str) -> str:
    """What is kept of a text: of ids at its end, whole ones, and how many more there are; else what there is room for, and …."""
    if len(text) <= MOST:
        return text
    end = text.rfind(", ", 0, MOST - len(_MORE.format(number=len(text))) + 1)
    if end > 0 and _IDS.fullmatch(text, end):
        return text[:end] + _MORE.format(number=text.count(",", end))
    return text[: MOST - 1] + "…"
