"""Jobs of device groups: the statements of `sql/groups.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shardd.queue.database import Database
from shardd.queue.records import WorkHint


@dataclass(frozen=True, slots=True)
class PoolJob:
    """A job that waits for one of a group's devices."""

    id: int
    address: str
    known: str | None
    """The device that its recipient knows."""


class Groups:
    """The groups' statements over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def members(self) -> dict[str, list[str]]:
        """The devices of each group."""
        groups: dict[str, list[str]] = {}
        for group, device_id in await self._database.fetch_all("members_of_groups"):
            groups.setdefault(group, []).append(device_id)
        return groups

    async def pools(self, after: tuple[str, str], most: int) -> list[tuple[str, str]]:
        """(group, lane) of up to `most` lanes in which jobs wait for a device, behind one of them."""
        params = {"after_group": after[0], "after_lane": after[1], "most": most}
        return [(row[0], row[1]) for row in await self._database.fetch_all("find_pools", params)]

    async def share_out(
        self, group: str, lane: str, most: int, choose: Callable[[Sequence[PoolJob]], Mapping[int, str]]
    ) -> list[WorkHint]:
        """Give the first `most` jobs of a lane to the devices that `choose` names by job id; the rest stays."""
        rows = await self._database.fetch_all("pool_jobs", {"device_group": group, "lane": lane, "most": most})
        given = choose([PoolJob(*row) for row in rows])
        if not given:
            return []
        params = {"ids": list(given), "device_ids": list(given.values())}
        return [(row[0], row[1], (row[2], row[3])) for row in await self._database.fetch_all("assign_jobs", params)]

    async def take_back(self, device_ids: Sequence[str], most: int) -> int:
        """Put jobs of devices that cannot send back into the pool; returns how many."""
        params = {"device_ids": list(device_ids), "most": most}
        return len(await self._database.fetch_all("unassign_jobs", params))
