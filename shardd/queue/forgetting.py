"""Forgetting a person: the statements of `sql/forgetting.sql` as typed calls.

Large tables are read in parts, each in a transaction of its own, so no statement takes longer the more rows there are. What
connects the addresses of a person goes last, and until then they are in `shardd.forgetting`: whoever interrupts the work, another
call continues it, and finds all that is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from shardd.queue.queries import Queries, Record, Statements, first

CHUNK: Final = 20_000
"""Rows that one statement looks at."""
ERASE_CHUNK: Final = 1000
"""Finished jobs that one statement erases."""
TOUCH_EVERY: Final = 5.0
"""Seconds between notes that a command is at work."""
IDLE: Final = 60.0
"""Seconds without such a note after which a command was interrupted: no statement of it may take longer."""

STEPS: Final = ("waiting jobs", "events", "messages", "finished jobs", "the list and the map of addresses")
"""What is erased, in this order."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased."""

    addresses: list[str]
    """All that were known of these persons."""
    entries: int
    """On the list, in its log, in the map of addresses, the contacts of device groups and the states of devices."""
    messages: int
    """That they wrote."""
    ended: int
    """Jobs that had not started."""
    jobs: int
    events: int
    quotes: int
    """Jobs for groups that quoted them."""
    spellings: list[str]
    """The digits by which texts and files may name them."""
    in_flight: int
    """Jobs that have not ended yet, so that they are not erased."""


@dataclass(frozen=True, slots=True)
class ForgottenSince:
    """When somebody was forgotten."""

    created_at: datetime
    created_by: str
    erased: bool
    """False: nothing is sent to them, but not all rows are erased yet."""


@dataclass(frozen=True, slots=True)
class OtherNode:
    """A node on whose state folder this host's commands have no access."""

    name: str
    host: str
    state_dir: str


@dataclass(slots=True)
class Progress:
    """How far the work is; it is changed as it goes on."""

    doing: str = "addresses"
    looked: int = 0
    """Rows that this step has looked at."""
    about: int = 0
    """How many there are, as far as known."""
    stopped: bool = False
    """Nothing is sent to them any more."""
    done: list[str] = field(default_factory=list)
    """Those of `STEPS` that are complete."""
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("entries", "messages", "ended", "jobs", "events", "quotes"), 0)
    )
    """Rows that were erased, by the fields of `Forgotten`."""

    @property
    def remaining(self) -> list[str]:
        """Those of `STEPS` that are not complete."""
        return [step for step in STEPS if step not in self.done]


Report = Callable[[Progress], None]


class Forgetting(Statements):
    """What an operator does when somebody asks to be forgotten. Everything can be repeated."""

    async def unfinished(self) -> list[str]:
        """Addresses of people whose erasure was interrupted."""
        return list(await self._database.value("unfinished_addresses"))

    async def forget(
        self, addresses: Sequence[str], *, created_by: str, wait: float = 0.0, report: Report = lambda _: None
    ) -> Forgotten:
        """Stop messages to these persons, and erase what is stored of them and of those whose erasure was interrupted.

        `wait`: seconds for jobs of theirs that are in flight; `report` is called after each part.
        """
        work = _Work(self._database, report)
        everybody = given = await work.all_addresses(list(addresses))
        if unfinished := await self.unfinished():
            everybody = await work.all_addresses(sorted({*given, *unfinished}))
        await work.begin(given, everybody, created_by)
        live = await work.find("live_jobs_of_person", "waiting jobs", everybody)
        await work.end_live(live, wait)
        work.complete(0)

        jobs = await work.find("jobs_of_person", "events", everybody)
        await work.erase_events(everybody, jobs)
        work.complete(1)
        await work.erase_messages(everybody)
        await work.erase_quotes(everybody)
        work.complete(2)
        await work.erase_jobs(everybody, jobs)
        work.complete(3)
        await work.finish(everybody)
        work.complete(4)
        left = await work.find("live_jobs_of_person", "waiting jobs", everybody)
        spellings = await self._database.value("spellings_of_person", {"addresses": everybody})
        return Forgotten(addresses=everybody, spellings=spellings, in_flight=len(left), **work.progress.counts)

    async def since(self, address: str) -> ForgottenSince | None:
        """When the person with this address was forgotten; None: they were not."""
        return first(await self._database.rows_for(ForgottenSince, "show_forgotten", {"address": address}))

    async def other_nodes(self, state_id: str) -> list[OtherNode]:
        """The nodes with another state folder."""
        return await self._database.rows(OtherNode, "other_nodes", {"id": state_id})

    async def interrupted(self) -> tuple[datetime, int] | None:
        """Since when erasures wait that no command works on, and how many; None: there is none."""
        found = first(await self._database.rows(Record, "unfinished_forgetting", {"idle": IDLE}))
        return None if found is None else (found["since"], found["runs"])


class _Work(Statements):
    """One call of `Forgetting.forget`."""

    def __init__(self, database: Queries, report: Report) -> None:
        super().__init__(database)
        self.progress = Progress()
        self._run: int | None = None
        self._report = report
        self._touched = time.monotonic()
        self._sizes: Record = {}

    async def begin(self, given: list[str], everybody: list[str], created_by: str) -> None:
        params = {"addresses": given, "unfinished": everybody, "by": created_by}
        self._run = await self._database.value("begin_forgetting", params)
        self.progress.stopped = True

    async def finish(self, addresses: list[str]) -> None:
        params = {"run": self._run, "addresses": addresses}
        self.progress.counts["entries"] = await self._database.value("finish_forgetting", params)

    def complete(self, step: int) -> None:
        self.progress.done.append(STEPS[step])
        self._report(self.progress)

    async def all_addresses(self, addresses: list[str]) -> list[str]:
        """All that the map and the inbox have of these persons."""
        if not self._sizes:
            (self._sizes,) = await self._database.rows(Record, "sizes_to_search")
        known: list[str] = await self._database.value("known_addresses", {"addresses": addresses})
        while known:
            theirs: set[str] = set()
            self._begin("addresses", "messages")
            after = 0
            while (part := await self._part("messages_of_person", addresses=known, after=after))["last"] is not None:
                theirs.update(part["theirs"])
                after = part["last"]
            params = {"addresses": sorted({*known, *theirs})}
            more: list[str] = await self._database.value("known_addresses", params)
            if more == known:
                break
            known = more
        return known

    async def find(self, name: str, doing: str, addresses: list[str]) -> list[int]:
        """The ids that a statement finds, which looks at the rows after an id."""
        self._begin(doing, "jobs" if name == "jobs_of_person" else "")
        ids: list[int] = []
        after = 0
        while (part := await self._part(name, addresses=addresses, after=after))["last"] is not None:
            ids += part["ids"]
            after = part["last"]
        return ids

    async def end_live(self, jobs: list[int], wait: float) -> None:
        """End those that wait, and wait for the others, which may wait again."""
        until = time.monotonic() + wait
        while jobs:
            self.progress.counts["ended"] += await self._database.value("end_jobs_of_person", {"jobs": jobs})
            jobs = await self._database.column("remaining_jobs_of_person", {"jobs": jobs})
            if time.monotonic() >= until:
                return
            await self._touch()
            await asyncio.sleep(0.5 if jobs else 0.0)

    async def erase_events(self, addresses: list[str], jobs: list[int]) -> None:
        self._begin("events", "events")
        after: dict[str, Any] = {"after_xid": "0", "after_id": 0}
        while True:
            part = await self._part("erase_events", addresses=addresses, jobs=jobs, **after)
            self.progress.counts["events"] += part["erased"]
            if part["last_xid"] is None:
                break
            after = {"after_xid": part["last_xid"], "after_id": part["last_id"]}
        known = {"addresses": addresses, "jobs": jobs}
        self.progress.counts["events"] += await self._database.value("erase_webhook_failures", known)

    async def erase_messages(self, addresses: list[str]) -> None:
        self._begin("messages", "messages")
        after = 0
        while (part := await self._part("messages_of_person", addresses=addresses, after=after))["last"] is not None:
            if part["ids"]:
                self.progress.counts["messages"] += await self._database.value("erase_messages", {"ids": part["ids"]})
            after = part["last"]

    async def erase_quotes(self, addresses: list[str]) -> None:
        """After the messages: from then on, no new job can quote them."""
        self.progress.counts["quotes"] += await self._database.value("erase_quotes", {"addresses": addresses})

    async def erase_jobs(self, addresses: list[str], jobs: list[int]) -> None:
        self._begin("finished jobs", "")
        for start in range(0, len(jobs), ERASE_CHUNK):
            params = {"addresses": addresses, "jobs": jobs[start : start + ERASE_CHUNK]}
            self.progress.counts["jobs"] += await self._database.value("erase_jobs", params)
            await self._touch()

    def _begin(self, doing: str, table: str) -> None:
        self.progress.doing, self.progress.looked = doing, 0
        self.progress.about = round(self._sizes.get(table) or 0)

    async def _part(self, name: str, **params: Any) -> Record:
        (part,) = await self._database.rows(Record, name, {**params, "most": CHUNK})
        self.progress.looked += part["looked"] or 0
        self._report(self.progress)
        await self._touch()
        return part

    async def _touch(self) -> None:
        if self._run is not None and time.monotonic() - self._touched >= TOUCH_EVERY:
            self._touched = time.monotonic()
            await self._database.execute("touch_forgetting", {"run": self._run})
