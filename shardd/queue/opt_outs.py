"""The opt-out list, for the daemon and for operators: the statements of `sql/opt_outs.sql` as typed calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shardd.errors import BlockedError, RefusedDataError
from shardd.logs import get_logger
from shardd.persons import recipient_at
from shardd.queue.queries import Statements, first
from shardd.queue.values import arrays

log = get_logger(__name__)

CHUNK: Final = 2000
"""Rows of one statement: few enough that it delays no other session noticeably."""

Pair = tuple[str, str]
"""Two addresses of one person."""


@dataclass(frozen=True, slots=True)
class OptedOut:
    """Somebody wrote to a device that they want no more messages, or that they want them again."""

    device_id: str
    recipients: tuple[str, ...]
    """All addresses of this person, each once, the best first: `+628123…`, `ID@lid`."""
    words: str
    at: float
    """POSIX seconds."""
    message_id: str = ""
    """By which the inbox may have the message already."""

    @property
    def sender(self) -> str:
        """As the inbox names the person."""
        return next(iter(self.recipients), "")


class OptOuts(Statements):
    """What the daemon does with the list."""

    async def store(self, opt_out: OptedOut, confirm: str | None, *, without_answer: bool = False) -> bool:
        """Add it to the list, and send `confirm` as an answer if it is new; returns whether it is.

        `without_answer`: if the answer may be what is blocked, skip it. Raises BlockedError when an open transaction is in the
        way, RefusedDataError when the database refuses it.
        """
        try:
            return await self._store(opt_out, confirm)
        except (RefusedDataError, BlockedError) as error:
            if confirm is None or (isinstance(error, BlockedError) and not without_answer):
                raise
            why = error
        # The answer may be what is refused or blocked; the opt-out is more important.
        new = await self._store(opt_out, None)
        log.error("an opt-out is not answered", action="opt_out", device=opt_out.device_id, error=str(why))
        return new

    async def _store(self, opt_out: OptedOut, confirm: str | None) -> bool:
        # Of two forms of one number, the better one is answered.
        persons = {recipient_at(recipient).address: recipient for recipient in reversed(opt_out.recipients)}
        params = {
            "device_id": opt_out.device_id,
            "message_id": opt_out.message_id,
            "sender": opt_out.sender,
            "recipients": [*reversed(persons.values())],
            "words": opt_out.words,
            "said_at": opt_out.at,
            "confirm": confirm,
        }
        new = bool(await self._database.value("hear_opt_out", params))
        *others, best = persons
        await self.learn((best, other) for other in others)
        return new

    async def learn(self, pairs: Iterable[Pair], *, moved: bool = False) -> None:
        """Remember which addresses are one person's: opt-outs of one hold for the other from then on. Raises DatabaseError.

        `moved`: the first of each is a number that the person has no more.
        """
        if pairs := sorted(set(pairs)):
            addresses, others = zip(*pairs, strict=True)
            params = {"addresses": list(addresses), "others": list(others), "moved": moved}
            await self._database.execute("learn_addresses", params)

    async def take_back(self, said: OptedOut, confirm: str | None) -> list[str]:
        """A person takes all their opt-outs back, and is answered with `confirm`; returns the addresses.

        None if they opted out at the same time or later. Raises RefusedDataError when the database refuses it.
        """
        try:
            return await self._take_back(said, confirm)
        except RefusedDataError as error:
            if confirm is None:
                raise
            why = error
        taken = await self._take_back(said, None)
        log.error("who takes an opt-out back is not answered", action="opt_out", device=said.device_id, error=str(why))
        return taken

    async def _take_back(self, said: OptedOut, confirm: str | None) -> list[str]:
        params = {
            "device_id": said.device_id,
            "message_id": said.message_id,
            "sender": said.sender,
            "recipients": list(said.recipients),
            "words": said.words,
            "said_at": said.at,
            "confirm": confirm,
        }
        return await self._database.column("take_back_opt_outs", params)

    async def opted_out(self, addresses: Collection[str]) -> set[str]:
        """Those of these addresses that opted out. Raises DatabaseError."""
        return set(await self._database.column("opted_out_addresses", {"addresses": list(addresses)}))

    async def refresh(self) -> None:
        """Bring addresses up to date, in small transactions, after the rules or what is known changed. Raises DatabaseError."""
        while await self._database.value("refresh_addresses", {"most": CHUNK}):
            pass
        await self._database.execute("spread_recent_opt_outs", {"most": CHUNK})

    async def configure(self, exempt: Sequence[str], codes: Mapping[str, str]) -> None:
        """Store the classes that an opt-out does not stop, and the calling codes of the default regions, by transport."""
        await self._database.execute("configure_opt_outs", {"exempt": list(exempt), "codes": json.dumps(dict(codes))})


@dataclass(frozen=True, slots=True)
class NewOptOut:
    """A recipient to be added; `said_at`: when the recipient opted out, if known."""

    recipient: str
    note: str | None = None
    said_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OptOut:
    """A row of shardd.opt_outs."""

    address: str
    recipient: str
    source: str
    device_id: str | None
    words: str | None
    note: str | None
    said_at: datetime | None
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NumberedOptOut(OptOut):
    """With its number in the log: a later one has a higher number."""

    number: int


@dataclass(frozen=True, slots=True)
class LoggedOptOut:
    """What a recipient said; `kind`: opted_out, repeated or taken_back."""

    kind: str
    source: str
    device_id: str | None
    words: str | None
    said_at: datetime | None
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoppedJob:
    """A job that was not sent because of an opt-out."""

    id: int
    device_id: str | None
    campaign: str | None
    job_class: str
    reference: str | None
    created_at: datetime
    settled_at: datetime


class OptOutAdmin(Statements):
    """What an operator asks and does about the list."""

    async def exempt(self) -> list[str]:
        """The classes that an opt-out does not stop, as the host that read its config last has them."""
        return [str(one) for one in await self._database.column("exempt_classes")]

    async def add(self, added: Sequence[NewOptOut], *, source: str, created_by: str) -> set[str]:
        """Add recipients, in chunks; returns the addresses that are new. Raises BlockedError with the number that was added."""
        new: set[str] = set()
        for start in range(0, len(added), CHUNK):
            chunk = added[start : start + CHUNK]
            params = arrays(chunk, recipients="recipient", notes="note", said_ats="said_at")
            params |= {"source": source, "created_by": created_by}
            try:
                new.update(await self._database.column("add_opt_outs", params))
            except BlockedError as error:
                done = f"the first {start:,} are on the list, the other {len(added) - start:,} were not added"
                raise BlockedError(f"{done if start else 'nothing was changed'}: {error}") from error
        return new

    async def listed(self, addresses: Sequence[str]) -> set[str]:
        """Those of these addresses that are on the list, or forgotten."""
        found: set[str] = set()
        for start in range(0, len(addresses), CHUNK):
            chunk = list(addresses[start : start + CHUNK])
            found.update(await self._database.column("opted_out_addresses", {"addresses": chunk}))
        return found

    async def newest(self, most: int, *, source: str | None = None, device_id: str | None = None) -> list[OptOut]:
        """The newest ones first."""
        params = {"most": most, "source": source, "device_id": device_id}
        return await self._database.rows_for(OptOut, "list_opt_outs", params)

    async def page(self, most: int, before: int | None = None) -> list[NumberedOptOut]:
        """The newest ones first, those with a lower number than `before`."""
        return await self._database.rows_for(NumberedOptOut, "page_of_opt_outs", {"most": most, "before": before})

    async def everybody(self) -> AsyncIterator[list[OptOut]]:
        """The whole list, in chunks, in the order of addresses; an opt-out that is added meanwhile may be missing."""
        address = ""
        while chunk := await self._database.rows_for(OptOut, "opt_outs_after", {"address": address, "most": CHUNK}):
            yield chunk
            address = chunk[-1].address

    async def show(self, address: str) -> OptOut | None:
        """The opt-out of an address."""
        return first(await self._database.rows_for(OptOut, "show_opt_out", {"address": address}))

    async def trail(self, address: str) -> list[LoggedOptOut]:
        """Each time that an address opted out, or took that back."""
        return await self._database.rows_for(LoggedOptOut, "opt_out_log", {"address": address})

    async def stopped(self, address: str, most: int) -> list[StoppedJob]:
        """The newest jobs that the opt-out of this address stopped."""
        return await self._database.rows_for(StoppedJob, "jobs_stopped", {"address": address, "most": most})
