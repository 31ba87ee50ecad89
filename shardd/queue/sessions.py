"""Which session belongs to which device: the statements of `sql/sessions.sql` as typed calls.

A change is announced to every supervisor by the table's trigger, like all changes of devices.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psycopg

from shardd.errors import DatabaseError
from shardd.queue.database import Database
from shardd.queue.devices import DeviceRow


def number_of(session: str) -> str:
    """The phone number of a session, digits only."""
    return session.partition("@")[0].partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """Sessions and the devices that get them, in the same order; gaps in seconds, None: as the config says."""

    ids: Sequence[str]
    sessions: Sequence[str]
    labels: Sequence[str | None]
    proxy: str | None = None
    gap_min: float | None = None
    gap_max: float | None = None
    daily_limit: int | None = None


class SessionAdmin:
    """Sessions of devices, over a database. Every call raises DatabaseError; removed devices count as unknown."""

    def __init__(self, database: Database) -> None:
        """`database`: with room for two connections if `hold_pairing` is used, which keeps one."""
        self._database = database

    @asynccontextmanager
    async def hold_pairing(self, device_id: str, *, patience: float) -> AsyncGenerator[bool]:
        """Whether the device's pairing is ours, for as long as the block lasts: `patience` seconds at most."""
        queries, params = self._database.queries, {"id": device_id, "patience": patience}
        async with self._database.connection(timeout=patience) as connection:
            ours = (await connection.execute(queries["begin_pairing"], params)).rowcount == 1
            try:
                yield ours
            finally:
                if ours:
                    # Of a connection that is lost everybody can see that it is.
                    with suppress(psycopg.Error):
                        await connection.execute(queries["end_pairing"], params)

    async def number_holder(self, number: str, *, but: str) -> str | None:
        """The device other than `but` that has a session of this number."""
        rows = await self._database.fetch_all("number_holder", {"number": number, "id": but})
        return str(rows[0][0]) if rows else None

    async def bind(self, device_id: str, session: str, *, old: str | None) -> bool:
        """Give a device its session and make it ready.

        False when its session is not `old` any more, when it was removed, or when another device holds the number.
        """
        params = {"id": device_id, "session": session, "old": old, "number": number_of(session)}
        try:
            return await self._database.execute("bind_session", params) == 1
        except DatabaseError as error:
            # Another device got the number in this moment.
            if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                return False
            raise

    async def unbind(self, device_id: str, session: str, reason: str) -> bool:
        """Take a device's session away; False when it has another one or none."""
        params = {"id": device_id, "session": session, "reason": reason}
        return await self._database.execute("unbind_session", params) == 1

    async def restore(self, device: DeviceRow) -> bool:
        """Undo `unbind`: session and state as they are in `device`; False when it has a session again."""
        params = {
            "id": device.id,
            "session": device.session,
            "state": device.state,
            "reason": device.reason,
            "until": device.state_until,
        }
        return await self._database.execute("restore_session", params) == 1

    async def take_over(self, device_id: str) -> bool:
        """Make a replaced device ready; False when it is in another state."""
        return await self._database.execute("take_over_session", {"id": device_id}) == 1

    async def adopt(self, new: Adoption) -> set[str]:
        """Give stored sessions to devices; returns the ids of those that got theirs.

        A session whose number a device has, or whose id is taken, is left out.
        """
        params = {
            "ids": list(new.ids),
            "sessions": list(new.sessions),
            "labels": list(new.labels),
            "proxy": new.proxy,
            "gap_min": new.gap_min,
            "gap_max": new.gap_max,
            "daily_limit": new.daily_limit,
        }
        return {row[0] for row in await self._database.fetch_all("adopt_sessions", params)}
