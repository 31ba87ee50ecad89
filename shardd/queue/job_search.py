"""Jobs page by page, newest first, in bounded time whatever is asked for and however many there are.

Jobs are found by their ids, so a page is as quick at the end of a million as at its beginning. What no index helps to find, such
as a person's messages or those of a device, would take all of them to be read. So the ids are searched in windows, each as large
as the time that is left allows, and the answer says how far the search came: the next page goes on from there.

An index for each such question would answer it at once, and make every settlement slower: of 500 jobs, with a million finished
ones, it took 12 ms without, 13 with one on the address, and 15 with one on the device or with both; each has 39 MB per million.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from shardd.queue.job_admin import FIRST_REVOCATIONS, Traits
from shardd.queue.queries import Record, Statements
from shardd.queue.records import JobRow
from shardd.queue.windows import Window, search_ids
from shardd.states import FINISHED, JobState

BUDGET: Final = 0.045
"""Seconds in which a page is searched; the window that is being read when they end is finished."""
FIRST_WINDOW: Final = 20_000
"""Ids: some milliseconds."""
UNSENT: Final = FINISHED - {JobState.SENT}
"""States of which an index has the ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which jobs are asked for; all must match."""

    traits: Traits = field(default_factory=Traits)
    device_group: str | None = None
    address: str | None = None
    """Of the recipient, as `shardd.resolve` writes it."""
    unreadable: bool = False
    waits_for: str | None = None
    """What a queued one waits for, as the status counts them (`queue.waits`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """What was found, newest first."""

    jobs: list[JobRow]
    older: int | None = None
    """The page before this id goes on; None: there is nothing older."""
    newer: int | None = None
    """The page after this id is the one before; None: this is the first."""
    unfinished: bool = False
    """The time was up before the page was full: more may be before `older`."""


class JobSearch(Statements):
    """Pages of jobs."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    async def page(
        self,
        question: Question,
        most: int,
        *,
        before: int | None = None,
        after: int | None = None,
        budget: float = BUDGET,
    ) -> JobPage:
        """Up to `most` jobs: the newest, those before an id, or those after one. `budget`: seconds. Raises DatabaseError."""
        ends = self.clock() + budget
        bounds = await self._bounds(question.traits.state if question.waits_for is None else JobState.QUEUED)
        if bounds is None:
            return JobPage(jobs=[])
        first, last = bounds
        if after is not None:
            jobs, ended = await self._search(question, most + 1, max(first, after + 1), last, ends, upwards=True)
            if len(jobs) > most:
                shown = jobs[:most][::-1]
                return JobPage(jobs=shown, older=shown[-1].id, newer=shown[0].id)
            # Fewer than a page are newer: the first page has them, and is full.
        newer = None if before is None or after is not None else before - 1
        jobs, ended = await self._search(question, most + 1, first, last if newer is None else min(newer, last), ends)
        shown = jobs[:most]
        if len(jobs) > most:
            return JobPage(jobs=shown, older=shown[-1].id, newer=newer)
        return JobPage(jobs=shown, older=ended, newer=newer, unfinished=ended is not None)

    async def oldest(self, question: Question, most: int, *, after: int = 0) -> JobPage:
        """Up to `most` jobs after an id, the oldest first. Raises DatabaseError."""
        bounds = await self._bounds(question.traits.state)
        if bounds is None:
            return JobPage(jobs=[])
        first, last = bounds
        ends = self.clock() + BUDGET
        jobs, ended = await self._search(question, most + 1, max(first, after + 1), last, ends, upwards=True)
        if len(jobs) > most:
            return JobPage(jobs=jobs[:most], newer=jobs[most - 1].id)
        return JobPage(jobs=jobs, newer=ended, unfinished=ended is not None)

    async def _search(
        self, question: Question, most: int, first: int, last: int, ends: float, *, upwards: bool = False
    ) -> tuple[list[JobRow], int | None]:
        """Up to `most` jobs of these ids, and the id at which the time was up; None: there are no more."""
        statement = "list_jobs_upwards" if upwards else "list_jobs"
        params: dict[str, Any] = {**asdict(question.traits), "ids": None, "device_group": question.device_group}
        params |= {"address": question.address, "unreadable": question.unreadable, "waits_for": question.waits_for}

        async def read(low: int, high: int, more: int) -> list[JobRow]:
            return await self._database.rows_for(JobRow, statement, params | {"first": low, "last": high, "most": more})

        window = Window(_first_window(question, last - first + 1))
        return await search_ids(read, most, first, last, window, ends=ends, clock=self.clock, upwards=upwards)

    async def _bounds(self, state: JobState | None) -> tuple[int, int] | None:
        """The first and the last id that a job in this state can have; None: there is none."""
        (row,) = await self._database.rows(Record, "bounds_of_jobs")
        tables = {"live": state is None or state not in FINISHED, "finished": state is None or state in FINISHED}
        ids = [row[f"{edge}_{name}"] for name, read in tables.items() if read for edge in ("first", "last")]
        known = [one for one in ids if one is not None]
        return (min(known), max(known)) if known else None


def _first_window(question: Question, ids: int) -> int:
    """Everything, where an index has what is asked for in order, or only that; much, where an index has most of it."""
    traits = question.traits
    indexed = traits.state in UNSENT
    alone = question == Question(traits=Traits(state=traits.state)) and (indexed or traits.state is None)
    if traits.reference is not None or alone:
        return max(1, ids)
    if traits.revokes_campaign is not None:
        return FIRST_REVOCATIONS
    return 4 * FIRST_WINDOW if indexed else FIRST_WINDOW
