"""Forgetting a person: the statements of `sql/forgetting.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shardd.queue.database import Record, Statements, first

CHUNK: Final = 20_000
"""Finished jobs that one statement looks at."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased."""

    addresses: list[str]
    """All that were known of these persons."""
    entries: int
    """On the list, in its log, in the map of addresses and the contacts of device groups."""
    messages: int
    """That they wrote."""
    ended: int
    """Jobs that had not started."""
    jobs: int
    events: int
    in_flight: int
    """Jobs that have not ended yet, so that they are not erased."""


@dataclass(frozen=True, slots=True)
class ForgottenSince:
    """When somebody was forgotten."""

    created_at: datetime
    created_by: str


class Forgetting(Statements):
    """What an operator does when somebody asks to be forgotten. Everything can be repeated."""

    async def forget(self, addresses: Sequence[str], *, created_by: str) -> Forgotten:
        """Stop messages to these persons, and erase what is stored of them."""
        params = {"addresses": list(addresses), "by": created_by}
        (found,) = await self._database.rows(Record, "forget_person", params)
        known = {"addresses": found["addresses"]}
        jobs = await self._jobs_of(found["addresses"])
        (erased,) = await self._database.rows(Record, "erase_person", {**known, "jobs": jobs})
        in_flight = await self._database.value("live_jobs_of_person", known)
        return Forgotten(**found, jobs=erased["jobs"], events=erased["events"], in_flight=in_flight)

    async def since(self, address: str) -> ForgottenSince | None:
        """When the person with this address was forgotten; None: they were not."""
        return first(await self._database.rows_for(ForgottenSince, "show_forgotten", {"address": address}))

    async def _jobs_of(self, addresses: Sequence[str]) -> list[int]:
        jobs: list[int] = []
        after = 0
        while True:
            params = {"addresses": list(addresses), "after": after, "most": CHUNK}
            (part,) = await self._database.rows(Record, "jobs_of_person", params)
            if part["last"] is None:
                return jobs
            jobs += part["jobs"]
            after = part["last"]
