"""Bindings of producers: the statements of `sql/producers.sql` as typed calls.

A binding applies to every statement that begins after its commit, with the daemon up or down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.typed_rows import fetch_rows

Connection = AsyncConnection[TupleRow]
Result = TypeVar("Result")

PAUSES: Final = (0.2, 0.3, 0.5, 1.0, 1.0, 2.0)
"""Seconds between tries to get the locks that a change of bindings needs."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role of the server."""

    can_login: bool
    unbindable: bool
    """A superuser, a member of the role that owns the schema, or one that row security does not hold: no binding would."""
    may_insert: bool
    """It is a member of `shardd_producer`."""
    free_members: list[str]
    """Logins that are members of this login, and that its bindings will not hold."""


@dataclass(frozen=True, slots=True)
class Bindings:
    """Ids of what is bound to a role, or is to be."""

    devices: Sequence[str] = ()
    groups: Sequence[str] = ()
    campaigns: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.devices or self.groups or self.campaigns)

    def params(self, role: str) -> dict[str, object]:
        """As the statements take them."""
        return {
            "role": role,
            "devices": list(self.devices),
            "groups": list(self.groups),
            "campaigns": list(self.campaigns),
        }


@dataclass(frozen=True, slots=True)
class ProducerRow:
    """A bound role; `any_device`: it was never bound to a device or a group, so that its campaigns may use every device."""

    role: str
    created_at: datetime
    is_there: bool
    is_group: bool
    is_stale: bool | None
    """It was given LOGIN, or lost it, since it was bound: binding it again makes up for that."""
    held: bool
    """Whether the bindings have any effect: see `Role.unbindable`."""
    may_insert: bool
    any_device: bool
    devices: list[str]
    groups: list[str]
    campaigns: list[str]
    members: list[str]
    """The logins that are bound by a role without LOGIN."""

    @property
    def bindings(self) -> Bindings:
        """What is bound to it."""
        return Bindings(self.devices, self.groups, self.campaigns)


Named = tuple[str, str]
"""(kind, id), the kind being device, group or campaign."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What came of binding: nothing at all if something is `unknown`; else whether the role is new, and how many of each are."""

    unknown: list[Named]
    role_is_new: bool = False
    devices: int = 0
    groups: int = 0
    campaigns: int = 0


class ProducerAdmin:
    """Bindings, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def role(self, role: str) -> Role | None:
        """A role of the server, or None when there is none of this name."""
        rows = await fetch_rows(self._database, Role, "describe_role", {"role": role})
        return rows[0] if rows else None

    async def statements(self, role: str) -> tuple[str, str]:
        """The SQL that makes a login which may insert, and the SQL that lets a role insert that is there."""
        ((create, grant),) = await self._database.fetch_all("sql_for_role", {"role": role})
        return create, grant

    async def all(self) -> list[ProducerRow]:
        """Every bound role, by name."""
        return await fetch_rows(self._database, ProducerRow, "list_producers", {"of": None})

    async def of(self, role: str) -> list[ProducerRow]:
        """The sets of bindings that hold a role: its own, if it has any, and those of its groups."""
        return await fetch_rows(self._database, ProducerRow, "list_producers", {"of": role})

    async def idle(self) -> list[tuple[str, str]]:
        """Bound roles that their bindings do not hold: (role, `missing`, `unheld` or `stale`)."""
        return [(role, why) for role, why in await self._database.fetch_all("idle_bindings")]

    async def bind(self, role: str, bindings: Bindings, *, is_group: bool) -> Bound:
        """Bind devices, groups and campaigns to a role; nothing of it if one of them does not exist."""
        params = {**bindings.params(role), "is_group": is_group}
        queries = self._database.queries

        async def work(connection: Connection) -> Bound:
            unknown = await (await connection.execute(queries["unknown_names"], params)).fetchall()
            if unknown:
                return Bound([(kind, name) for kind, name in unknown])
            ((is_new,),) = await (await connection.execute(queries["bind_role"], params)).fetchall()
            (counts,) = await (await connection.execute(queries["add_bindings"], params)).fetchall()
            return Bound([], is_new, *counts)

        return await self._change(work)

    async def unbind(self, role: str, bindings: Bindings) -> list[Named]:
        """Take devices, groups and campaigns from a role, which stays bound; returns those that were bound to it."""
        rows = await self._database.fetch_all("remove_bindings", bindings.params(role))
        return [(kind, name) for kind, name in rows]

    async def free(self, role: str) -> bool:
        """Make a role as free as one that was never bound; whether it was."""
        query = self._database.queries["free_role"]

        async def work(connection: Connection) -> bool:
            return bool(await (await connection.execute(query, {"role": role})).fetchall())

        return await self._change(work)

    async def _change(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` in a transaction, one at a time. It changes tables that everybody uses, and keeps nobody waiting for long."""
        for pause in (*PAUSES, None):
            try:
                async with self._database.connection() as connection, connection.transaction():
                    await connection.execute(self._database.queries["hurry_for_locks"])
                    await connection.execute(self._database.queries["lock_producers"])
                    return await work(connection)
            except DatabaseError as error:
                if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                    raise
                if pause is None:
                    raise DatabaseError(
                        "nothing was changed, because a transaction of another program keeps a table of the queue: try again "
                        "when it has ended (pg_stat_activity shows the oldest)"
                    ) from error
                await asyncio.sleep(pause)
        raise AssertionError  # the last try returns or raises
