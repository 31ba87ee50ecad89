"""Bindings of producers: the statements of `sql/producers.sql` as typed calls.

A binding applies to every statement that begins after its commit, with the daemon up or down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shardd.errors import DatabaseError
from shardd.queue.queries import Record, Statements, first, rows_of

Connection = AsyncConnection[TupleRow]
Result = TypeVar("Result")

PAUSES: Final = (0.2, 0.3, 0.5, 1.0, 1.0, 2.0)
"""Seconds between tries to take the locks that a change of bindings needs."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role of the server."""

    can_login: bool
    unbindable: bool
    """A superuser, a member of the role that owns the schema, or one that bypasses row security: bindings have no effect."""
    may_insert: bool
    """A member of `shardd_producer`."""
    free_members: list[str]
    """Logins that are members of this login, but not covered by its bindings."""


@dataclass(frozen=True, slots=True)
class Bindings:
    """Ids that are bound to a role, or are to be."""

    devices: Sequence[str] = ()
    groups: Sequence[str] = ()
    campaigns: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Whether there is any id."""
        return bool(self.devices or self.groups or self.campaigns)

    def params(self, role: str) -> dict[str, object]:
        """As parameters of statements."""
        return {"role": role} | {name: list(ids) for name, ids in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class ProducerRow:
    """A bound role; `any_device`: it was never bound to a device or a group, so its campaigns may use every device."""

    role: str
    created_at: datetime
    is_there: bool
    is_group: bool
    is_stale: bool | None
    """It was given LOGIN, or lost it, since it was bound: bind it again."""
    held: bool
    """Whether the bindings have any effect: see `Role.unbindable`."""
    may_insert: bool
    any_device: bool
    devices: list[str]
    groups: list[str]
    campaigns: list[str]
    members: list[str]
    """The logins that a role without LOGIN binds."""

    @property
    def bindings(self) -> Bindings:
        """Its bindings."""
        return Bindings(self.devices, self.groups, self.campaigns)


Named = tuple[str, str]
"""(kind, id), the kind being device, group or campaign."""


def _named(*, kind: str, id: str) -> Named:  # noqa: A002  # a column's name
    return kind, id


@dataclass(frozen=True, slots=True)
class Bound:
    """The result of binding: nothing was bound if something is `unknown`; else the numbers of new bindings."""

    unknown: list[Named]
    devices: int = 0
    groups: int = 0
    campaigns: int = 0


class ProducerAdmin(Statements):
    """What an operator asks and does about bindings."""

    async def role(self, role: str) -> Role | None:
        """A role of the server, or None."""
        return first(await self._database.rows_for(Role, "describe_role", {"role": role}))

    async def statements(self, role: str) -> tuple[str, str]:
        """The SQL that creates a login which may insert, and the SQL that lets an existing role insert."""
        (row,) = await self._database.rows(Record, "sql_for_role", {"role": role})
        return row["create_role"], row["grant_insert"]

    async def all(self) -> list[ProducerRow]:
        """Every bound role, by name."""
        return await self._database.rows_for(ProducerRow, "list_producers", {"of": None})

    async def of(self, role: str) -> list[ProducerRow]:
        """The sets of bindings that apply to a role: its own, if it has any, and those of its groups."""
        return await self._database.rows_for(ProducerRow, "list_producers", {"of": role})

    async def idle(self) -> list[tuple[str, str]]:
        """Bound roles whose bindings have no effect: (role, `missing`, `unheld` or `stale`)."""
        return [(row["role"], row["why"]) for row in await self._database.rows(Record, "idle_bindings")]

    async def bind(self, role: str, bindings: Bindings, *, is_group: bool) -> Bound:
        """Bind devices, groups and campaigns to a role; nothing if one of them does not exist."""
        params = {**bindings.params(role), "is_group": is_group}
        queries = self._database.queries

        async def work(connection: Connection) -> Bound:
            if unknown := await rows_of(connection, _named, queries["unknown_names"], params):
                return Bound(unknown)
            await connection.execute(queries["bind_role"], params)
            (counts,) = await rows_of(connection, Record, queries["add_bindings"], params)
            return Bound([], **counts)

        return await self._change(work)

    async def unbind(self, role: str, bindings: Bindings) -> list[Named]:
        """Remove bindings of a role, which stays bound; returns those that existed."""
        return await self._database.rows(_named, "remove_bindings", bindings.params(role))

    async def free(self, role: str) -> bool:
        """Unbind a role altogether; returns whether it was bound."""
        query = self._database.queries["free_role"]

        async def work(connection: Connection) -> bool:
            return (await connection.execute(query, {"role": role})).rowcount > 0

        return await self._change(work)

    async def _change(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do `work` in a transaction, one at a time. It locks tables that all sessions use, and so never waits for long."""

        async def once() -> Result:
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute(self._database.queries["set_short_lock_timeout"])
                await connection.execute(self._database.queries["lock_producers"])
                return await work(connection)

        return await patiently(once)


async def patiently(change: Callable[[], Awaitable[Result]]) -> Result:
    """Try to change bindings until their locks are free, for a while; `change` is a transaction. Raises DatabaseError."""
    for pause in (*PAUSES, None):
        try:
            return await change()
        except DatabaseError as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            if pause is None:
                raise DatabaseError(
                    "nothing was changed, because another program's transaction holds a lock on a table of the queue: try "
                    "again when it has ended (pg_stat_activity shows the oldest)"
                ) from error
            await asyncio.sleep(pause)
    raise AssertionError  # the last try returns or raises
