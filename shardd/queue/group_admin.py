"""What an operator asks and does about device groups: the statements of `sql/group_admin.sql` as typed calls.

They work with the daemon up or down; a daemon that runs learns of changed members by the table's trigger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shardd.queue.database import Database
from shardd.queue.typed_rows import fetch_rows


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
