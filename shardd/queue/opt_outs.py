"""Opt-outs for the daemon: the statements of `sql/opt_outs.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.database import Database

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HeardOptOut:
    """What a device was told by somebody who wants no more messages."""

    device_id: str
    recipients: tuple[str, ...]
    """All that name this one person, each once, the best first: `+628123…`, `ID@lid`."""
    words: str
    said_at: float
    """POSIX seconds."""


class OptOuts:
    """The list, over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hear(self, heard: HeardOptOut, confirm: str | None) -> bool:
        """Add to the list, and answer with `confirm` whoever was not on it; True: somebody was not."""
        try:
            return await self._hear(heard, confirm)
        except DatabaseError as error:
            if confirm is None or not was_refused(error):
                raise
            # The answer may be what is refused; the opt-out counts for more.
            log.error("an opt-out is not answered", action="opt_out", device=heard.device_id, error=str(error))
            return await self._hear(heard, None)

    async def _hear(self, heard: HeardOptOut, confirm: str | None) -> bool:
        ((new,),) = await self._database.fetch_all(
            "hear_opt_out",
            {
                "device_id": heard.device_id,
                "recipients": list(heard.recipients),
                "words": heard.words,
                "said_at": heard.said_at,
                "confirm": confirm,
            },
        )
        return bool(new)

    async def unwanted(self, addresses: Mapping[int, str]) -> set[int]:
        """Of jobs, by id with their recipients' addresses, those that must not be sent."""
        params = {"ids": list(addresses), "addresses": list(addresses.values())}
        return {row[0] for row in await self._database.fetch_all("unwanted_jobs", params)}

    async def configure(self, exempt: Sequence[str], country_codes: Sequence[str]) -> None:
        """Tell the database which classes an opt-out does not stop, and the calling codes of the default regions."""
        await self._database.execute(
            "configure_opt_outs", {"exempt": list(exempt), "country_codes": list(country_codes)}
        )


def was_refused(error: DatabaseError) -> bool:
    """Whether the database looked at a row and did not want it: asked again, it says the same."""
    return isinstance(error.__cause__, psycopg.IntegrityError | psycopg.DataError)
