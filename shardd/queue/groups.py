"""Device groups in the database: the statements of `sql/groups.sql` and `sql/group_admin.sql` as typed calls.

The operators' calls work with the daemon up or down; a running daemon is notified of changed members by the table's trigger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shardd.queue.database import Database
from shardd.queue.records import WorkHint
from shardd.queue.typed_rows import fetch_rows


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


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A device group; `able`: devices that can send; `pooled` jobs have no device yet, `given` ones have one of its devices."""

    id: str
    label: str | None
    created_at: datetime
    devices: int
    able: int
    pooled: int
    given: int


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a group; `state` is `removed` or `paused` before it is a state of the device.

    `jobs`: the group's live jobs that it was given; `contacts`: recipients that know it.
    """

    device_id: str
    transport: str
    state: str
    why: str | None
    jobs: int
    contacts: int


@dataclass(frozen=True, slots=True)
class AddedMembers:
    """What came of adding devices to a group: every device that exists, and those that were not in it before."""

    group_is_new: bool
    known: set[str]
    new: set[str]


class GroupAdmin:
    """Device groups, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[GroupRow]:
        """Every group, by id."""
        return await fetch_rows(self._database, GroupRow, "list_groups", {"ids": None})

    async def find(self, group: str) -> GroupRow | None:
        """One group, or None when there is none of this id."""
        rows = await fetch_rows(self._database, GroupRow, "list_groups", {"ids": [group]})
        return rows[0] if rows else None

    async def members(self, group: str) -> list[Member]:
        """The devices of a group, by id."""
        return await fetch_rows(self._database, Member, "group_members", {"id": group})

    async def add(self, group: str, device_ids: Sequence[str], label: str | None) -> AddedMembers:
        """Make a group if there is none, and put devices into it; a `label` that is None stays as it is."""
        async with self._database.connection() as connection, connection.transaction():
            queries = self._database.queries
            made = await (await connection.execute(queries["add_group"], {"id": group, "label": label})).fetchall()
            params = {"id": group, "device_ids": list(device_ids)}
            rows = await (await connection.execute(queries["add_members"], params)).fetchall()
        return AddedMembers(made[0][0], {row[0] for row in rows}, {row[0] for row in rows if row[1]})

    async def remove(self, group: str, device_ids: Sequence[str]) -> tuple[set[str], int]:
        """Take devices out of a group; returns those that were in it, and how many of their jobs went back to its pool."""
        rows = await self._database.fetch_all("remove_members", {"id": group, "device_ids": list(device_ids)})
        return {row[0] for row in rows}, rows[0][1] if rows else 0

    async def delete(self, group: str) -> bool:
        """Delete a group that no live job names; whether it was there and is gone."""
        return bool(await self._database.fetch_all("delete_group", {"id": group}))
