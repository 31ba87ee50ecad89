"""The audit log: what people did by the dashboard and by commands. The statements of `sql/acts.sql` as typed calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from shardd.queue.queries import Record, Statements
from shardd.queue.windows import Window, search_ids
from shardd.visible import visible
from shardd.words import count

MOST: Final = 500
"""Characters that are kept of each text."""
DONE: Final = "done"
"""The result of an act that was carried out."""
BEGUN: Final = "begun"
"""The result of an act that is not one transaction, before it is carried out: what came of it is another act."""
UNFINISHED: Final = f"{BEGUN}, and nothing is known of its end"
"""What is shown of such an act when its process died, or lost the database for good."""
LOST_AFTER: Final = 120.0
"""Seconds without a sign of whoever carries an act out, after which nothing is known of its end."""
FIRST_WINDOW: Final = 20_000
"""Acts of the first statement of a search: some milliseconds."""
UNHURRIED: Final = 3600.0
"""Seconds that a search may take for which somebody waits at a shell."""
NAMED_FOR: Final = 24 * 3600.0
"""Seconds for which the overview names such an act."""
ALREADY: Final = {"paused": "paused already", "resumed": "not paused", "changed": "like that already"}
"""Why there is nothing to do, by what would have been done; see `nothing_to_do`."""
_MORE: Final = " and {number:,} more"
_IDS: Final = re.compile(r"(, [A-Za-z0-9][A-Za-z0-9._:+@-]*)+")
_CLAIM: Final = " (sudo: {who})"


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
    unfinished: bool
    """It began, and nothing is known of its end."""

    @property
    def shown_result(self) -> str:
        """Its result for people."""
        return UNFINISHED if self.unfinished else self.result


@dataclass(frozen=True, slots=True)
class ActFilter:
    """Which acts are asked for; None: any."""

    who: str | None = None
    """A user, a token or an account, or what sudo says of an account."""
    act: str | None = None
    target: str | None = None
    """A thing, `device d1`, or its name."""

    @property
    def name(self) -> str:
        """Of the thing, as the detail of an act on several has it."""
        return (self.target or "").rpartition(" ")[2]


@dataclass(frozen=True, slots=True)
class ActPage:
    """Acts, newest first."""

    acts: list[Act]
    older: int | None = None
    """The page before this id goes on; None: there is nothing older."""
    unfinished: bool = False
    """The time was up before the page was full: more may be before `older`."""


class Acts(Statements):
    """Raises DatabaseError."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    async def record(self, new: NewAct, *, began: int | None = None, age: float = 0.0) -> None:
        """Add one that happened `age` seconds ago; `began`: the id of the one that begins it."""
        await self._database.execute("record_act", {**_kept(new), "began": began, "age": age})

    async def begin(self, new: NewAct) -> int:
        """Add one that is under way; returns its id."""
        return int(await self._database.value("begin_act", _kept(new)))

    async def see(self, began: int) -> None:
        """Say that it is still under way; at least every `LOST_AFTER` seconds."""
        await self._database.execute("see_act", {"act": began})

    async def newest(
        self, most: int, wanted: ActFilter, *, before: int | None = None, budget: float = UNHURRIED
    ) -> ActPage:
        """Up to `most`, newest first; `before`: only those with a smaller id. `budget`: seconds."""
        ends = self.clock() + budget
        (bounds,) = await self._database.rows(Record, "bounds_of_acts")
        first, last = (1, 0) if bounds["first"] is None else (bounds["first"], bounds["last"])
        if before is not None:
            last = min(last, before - 1)
        params = {
            **asdict(wanted),
            "name": wanted.name,
            "claim": by_sudo("", wanted.who or ""),
            "lost_after": LOST_AFTER,
        }

        async def read(low: int, high: int, more: int) -> list[Act]:
            return await self._database.rows(Act, "newest_acts", {**params, "first": low, "last": high, "most": more})

        # The newest of all are found by their index.
        window = Window(max(1, last - first + 1) if wanted == ActFilter() else FIRST_WINDOW)
        found, ended = await search_ids(read, most + 1, first, last, window, ends=ends, clock=self.clock)
        if len(found) > most:
            return ActPage(found[:most], found[most - 1].id)
        return ActPage(found, ended, unfinished=ended is not None)

    async def unfinished(self, most: int) -> list[Act]:
        """Those of a day of whose end nothing is known, newest first."""
        params = {"most": most, "lost_after": LOST_AFTER, "named_for": NAMED_FOR}
        return await self._database.rows(Act, "unfinished_acts", params)


def by_sudo(account: str, who: str) -> str:
    """An account of the operating system, and who sudo says it was: whoever has the account can write anything there."""
    return account + _CLAIM.format(who=who)


def named(one: str, names: Collection[object]) -> tuple[str, str]:
    """The target and the detail of an act on things called `one`."""
    if len(names) == 1:
        return listed(one, names), ""
    return count(len(names), one), listed(one, names)


def nothing_to_do(one: str, name: str, why: str) -> str:
    """What is said when an act changed nothing, such as `nothing to do: device d1 is not paused`."""
    return f"nothing to do: {one} {name} is {why}"


def listed(one: str, names: Collection[object]) -> str:
    """Things called `one` by their names: `device d1`, or `devices d1, d2`."""
    return f"{one}{'' if len(names) == 1 else 's'} {', '.join(map(str, names))}" if names else ""


def joined(*parts: str) -> str:
    """A detail of several parts; a list of ids is the last one: where the row has no room for all of it, the list is cut."""
    return "; ".join(filter(None, parts))


def shortened(text: str) -> str:
    """What is kept of a text: of ids at its end, whole ones, and how many more there are; else what there is room for, and …."""
    if len(text) <= MOST:
        return text
    end = text.rfind(", ", 0, MOST - len(_MORE.format(number=len(text))) + 1)
    if end > 0 and _IDS.fullmatch(text, end):
        return text[:end] + _MORE.format(number=text.count(",", end))
    return text[: MOST - 1] + "…"


def _kept(new: NewAct) -> dict[str, str]:
    return {name: shortened(visible(text)) for name, text in asdict(new).items()}
