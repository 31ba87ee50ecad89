"""Opt-outs for the daemon: the statements of `sql/opt_outs.sql` as typed calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardd.errors import BlockedError, RefusedDataError
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

    async def hear(self, heard: HeardOptOut, confirm: str | None, *, without_answer: bool = False) -> bool:
        """Add to the list, and answer with `confirm` whoever was not on it; True: somebody was not.

        `without_answer`: if the answer may be what is blocked, do without it. Raises BlockedError when somebody's transaction is
        in the way, RefusedDataError when the database does not want it.
        """
        try:
            return await self._hear(heard, confirm)
        except (RefusedDataError, BlockedError) as error:
            if confirm is None or (isinstance(error, BlockedError) and not without_answer):
                raise
            why = error
        # The answer may be what is refused or blocked; the opt-out counts for more.
        new = await self._hear(heard, None)
        log.error("an opt-out is not answered", action="opt_out", device=heard.device_id, error=str(why))
        return new

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


def address_of(recipient: str) -> str:
    """The address by which the database knows a recipient: shardd.address_of in Python."""
    if recipient.endswith(("@lid", "@g.us")):
        return recipient
    if "@" in recipient:
        return recipient.partition("@")[0].partition(":")[0]
    return re.sub("[^0-9]", "", recipient).removeprefix("00")
