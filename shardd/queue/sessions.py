"""The WhatsApp sessions of devices: the statements of `sql/sessions.sql` as typed calls.

Every supervisor is notified of a change by the table's trigger, as of all changes of devices.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass

import psycopg

from shardd.errors import DatabaseError
from shardd.queue.devices import DeviceRow
from shardd.queue.queries import Statements


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


class SessionAdmin(Statements):
    """What an operator does about the sessions of devices; removed ones count as unknown.

    The database needs room for two connections if `hold_pairing` is used, which keeps one.
    """

    @asynccontextmanager
    async def hold_pairing(self, device_id: str, *, patience: float) -> AsyncGenerator[bool]:
        """Whether the device's pairing is reserved for this block, which may take `patience` seconds at most."""
        queries, params = self._database.queries, {"id": device_id, "patience": patience}
        async with self._database.connection(timeout=patience) as connection:
            ours = (await connection.execute(queries["begin_pairing"], params)).rowcount == 1
            try:
                yield ours
            finally:
                if ours:
                    # The reservation of a lost connection is void.
                    with suppress(psycopg.Error):
                        await connection.execute(queries["end_pairing"], params)

    async def number_holder(self, number: str, *, but: str) -> str | None:
        """The device, other than `but`, that has a session with this number."""
        holder: str | None = await self._database.value("number_holder", {"number": number, "id": but})
        return holder

    async def bind(self, device_id: str, session: str, *, old: str | None) -> bool:
        """Give a device its session and make it ready.

        False when its session is no longer `old`, when it was removed, or when another device has the number.
        """
        params = {"id": device_id, "session": session, "old": old, "number": number_of(session)}
        try:
            return await self._database.execute("bind_session", params) == 1
        except DatabaseError as error:
            # Another device got the number in the meantime.
            if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                return False
            raise

    async def unbind(self, device_id: str, session: str, reason: str) -> bool:
        """Remove a device's session; False when it has another one or none."""
        params = {"id": device_id, "session": session, "reason": reason}
        return await self._database.execute("unbind_session", params) == 1

    async def restore(self, device: DeviceRow) -> bool:
        """Undo `unbind`: restore session and state from `device`; False when it has a session again."""
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

        A session whose number another device has, or whose id is taken, is skipped.
        """
        params = {**asdict(new), "ids": list(new.ids), "sessions": list(new.sessions), "labels": list(new.labels)}
        return await self._ids("adopt_sessions", params)
