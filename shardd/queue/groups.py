"""Device groups in the database: the statements of `sql/groups.sql` and `sql/group_admin.sql` as typed calls.

The operators' calls work with the daemon up or down; a running daemon is notified of changed members by the table's trigger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shardd.queue.jobs import hints
from shardd.queue.queries import Record, Statements, column_of, first, rows_of
from shardd.queue.records import WorkHint


@dataclass(frozen=True, slots=True)
class PoolJob:
    """A job that waits for one of a group's devices."""

    id: int
    address: str
    known: str | None
    """The device that last wrote to its recipient."""


class Groups(Statements):
    """What the daemon does with the jobs of device groups."""

    async def members(self) -> dict[str, list[str]]:
        """The devices of each group."""
        groups: dict[str, list[str]] = {}
        for row in await self._database.rows(Record, "members_of_groups"):
            groups.setdefault(row["device_group"], []).append(row["device_id"])
        return groups

    async def pools(self, after: tuple[str, str], most: int) -> list[tuple[str, str]]:
        """(group, lane) of up to `most` lanes in which jobs wait for a device, after `after`."""
        params = {"after_group": after[0], "after_lane": after[1], "most": most}
        rows = await self._database.rows(Record, "find_pools", params)
        return [(row["device_group"], row["lane"]) for row in rows]

    async def share_out(
        self, group: str, lane: str, most: int, choose: Callable[[Sequence[PoolJob]], Mapping[int, str]]
    ) -> list[WorkHint]:
        """Give the first `most` jobs of a lane to the devices that `choose` returns by job id; the others stay."""
        params = {"device_group": group, "lane": lane, "most": most}
        given = choose(await self._database.rows(PoolJob, "pool_jobs", params))
        if not given:
            return []
        return hints(
            await self._database.rows(Record, "assign_jobs", {"ids": list(given), "device_ids": list(given.values())})
        )

    async def take_back(self, device_ids: Sequence[str], most: int) -> int:
        """Put jobs of devices that cannot send back into the pool; returns how many."""
        params = {"device_ids": list(device_ids), "most": most}
        return await self._database.execute("unassign_jobs", params)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A device group; `able`: devices that can send; `pooled` jobs have no device yet, `given` ones were given to a device."""

    id: str
    label: str | None
    created_at: datetime
    devices: int
    able: int
    pooled: int
    given: int


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a group; `state` may also be `removed` or `paused`.

    `jobs`: the group's live jobs that it was given; `contacts`: recipients that it last wrote to.
    """

    device_id: str
    transport: str
    state: str
    why: str | None
    jobs: int
    contacts: int


@dataclass(frozen=True, slots=True)
class AddedMembers:
    """The result of adding devices to a group: the devices that exist, and those of them that are new in the group."""

    group_is_new: bool
    known: set[str]
    new: set[str]


class GroupAdmin(Statements):
    """What an operator asks and does about device groups."""

    async def all(self) -> list[GroupRow]:
        """Every group, by id."""
        return await self._database.rows_for(GroupRow, "list_groups", {"ids": None})

    async def find(self, group: str) -> GroupRow | None:
        """One group, or None."""
        return first(await self._database.rows_for(GroupRow, "list_groups", {"ids": [group]}))

    async def members(self, group: str) -> list[Member]:
        """The devices of a group, by id."""
        return await self._database.rows_for(Member, "group_members", {"id": group})

    async def add(self, group: str, device_ids: Sequence[str], label: str | None) -> AddedMembers:
        """Add devices to a group, which is created if it is new; a `label` of None keeps the present one."""
        async with self._database.connection() as connection, connection.transaction():
            queries = self._database.queries
            (is_new,) = await column_of(connection, queries["add_group"], {"id": group, "label": label})
            params = {"id": group, "device_ids": list(device_ids)}
            rows = await rows_of(connection, Record, queries["add_members"], params)
        return AddedMembers(is_new, {row["id"] for row in rows}, {row["id"] for row in rows if row["is_new"]})

    async def remove(self, group: str, device_ids: Sequence[str]) -> tuple[set[str], int]:
        """Remove devices from a group; returns those that were in it, and how many of their jobs returned to its pool."""
        rows = await self._database.rows(Record, "remove_members", {"id": group, "device_ids": list(device_ids)})
        return {row["device_id"] for row in rows}, rows[0]["jobs"] if rows else 0

    async def delete(self, group: str) -> bool:
        """Delete a group that no live job names; returns whether it was deleted."""
        return await self._database.execute("delete_group", {"id": group}) > 0
