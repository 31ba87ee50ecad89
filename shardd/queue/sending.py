"""What programs with a sending token do: the statements of `sql/sending.sql`, each transaction as the role of the token.

PostgreSQL's own rights hold for that role, and so do the triggers and views that enforce the bindings of producers: our login is
not bound, and takes over the bindings of the role that it sets (0009_producers.sql).
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final, TypeVar, get_type_hints

import psycopg

from shardd.errors import DatabaseError, SharddError, UnsureError
from shardd.postgres.errors import is_answer
from shardd.postgres.servers import Connection
from shardd.queue.columns import insert_of
from shardd.queue.database import Database
from shardd.queue.events import EventRow
from shardd.queue.job_search import BUDGET, FIRST_WINDOW
from shardd.queue.queries import Record, column_of, first, rows_of
from shardd.queue.records import JobRow
from shardd.queue.windows import Window, search_ids

DEADLOCKS: Final = 3
"""Times that a request is repeated because of one."""
POSITION: Final = "^[0-9]{1,18}-[0-9]{1,18}$"
AMONG: Final = 10_000
"""Events among which those of some kinds, or those that a role sees, are looked for at a time."""
PAUSE: Final = (0.05, 0.2)
"""Seconds before that; drawn, because the other one may be such a request, too."""
_RNG: Final = SystemRandom()
Row = TypeVar("Row")

_HINTS: Final = get_type_hints(JobRow)
OUTCOME: Final = dataclasses.make_dataclass(
    "Outcome",
    [
        *((field.name, _HINTS[field.name]) for field in dataclasses.fields(JobRow) if field.name != "transport"),
        ("attempt", int),
    ],
    frozen=True,
    namespace={"__doc__": "A job as producers see it in `shardd.outcomes`.", "__module__": __name__},
)


class RoleError(SharddError):
    """shardd cannot act as the role of a token."""


class NewJobError(SharddError):
    """A job was refused, and so were those that were to be inserted with it. `cause`: why."""

    def __init__(self, index: int, cause: DatabaseError) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Inserted:
    """What became of a new job."""

    id: int | None
    duplicate: bool
    """Nothing was inserted, because there is one with its dedupe key: `id`, or None if the role may not see that."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, and the position from which to go on."""

    events: list[EventRow]
    position: str
    unfinished: bool
    """Not all events were looked at: go on at once."""


@dataclass(frozen=True, slots=True)
class OutcomePage:
    """Jobs as OUTCOMEs, newest first."""

    jobs: list[Any]
    older: int | None
    """The page before this id goes on; None: there is nothing older."""
    unfinished: bool
    """The time was up before the page was full: more may be before `older`."""


class Sending:
    """The work of one role; None: our own, which sees everything. Raises DatabaseError, and RoleError."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, database: Database, role: str | None) -> None:
        self._database = database
        self._role = role

    async def insert(self, jobs: Sequence[Mapping[str, str | None]]) -> list[Inserted]:
        """Insert jobs, all or none. Raises NewJobError and UnsureError, too.

        Each has columns of `GIVEN` as texts, which PostgreSQL reads as if they stood in the statement. Requests that have the
        same dedupe keys in another order may wait for each other: the one that PostgreSQL ends for it is repeated.
        """
        for _ in range(DEADLOCKS):
            try:
                return await self._insert(jobs)
            except DatabaseError as error:
                if not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                    raise
                await asyncio.sleep(_RNG.uniform(*PAUSE))  # the other one goes on meanwhile
        return await self._insert(jobs)

    async def _insert(self, jobs: Sequence[Mapping[str, str | None]]) -> list[Inserted]:
        done: list[psycopg.AsyncCursor[Any]] = []
        complete = False
        try:
            async with self._transaction() as connection:
                # In one round trip, and a statement for each: only so is it known which one is a duplicate or refused.
                async with connection.pipeline():
                    for job in jobs:
                        given = job or {"device_id": None}  # SQL has no empty list of columns
                        done.append(await connection.execute(insert_of(tuple(given)), given))
                ids = [await cursor.fetchone() for cursor in done]
                inserted = [
                    Inserted(row[0], duplicate=False) if row else await self._duplicate(connection, job)
                    for job, row in zip(jobs, ids, strict=True)
                ]
                complete = True
        except DatabaseError as error:
            if complete and not is_answer(error):
                raise UnsureError(str(error)) from error
            index = sum(cursor.pgresult is not None and cursor.description is not None for cursor in done)
            if index < len(jobs) and _is_about_a_row(error):
                raise NewJobError(index, error) from error
            raise
        return inserted

    async def job(self, number: int) -> Any | None:
        """One job that the role sees, as an OUTCOME."""
        return first(await self._rows(OUTCOME, "seen_job", {"id": number}))

    async def by_reference(self, reference: str, most: int) -> list[Any]:
        """Jobs with a reference, newest first."""
        return await self._rows(OUTCOME, "seen_by_reference", {"reference": reference, "most": most})

    async def by_dedupe_key(self, key: str) -> list[Any]:
        """The job with a dedupe key."""
        return await self._rows(OUTCOME, "seen_by_dedupe_key", {"dedupe_key": key})

    async def newest(self, most: int, before: int | None = None) -> OutcomePage:
        """The newest jobs, or those before an id: a moment is spent to look for those that the role sees among all others."""
        ends = self.clock() + BUDGET
        (bounds,) = await self._database.rows(Record, "bounds_of_jobs")
        ids = [one for one in bounds.values() if one is not None] or [0]  # also then, the role is one that may ask

        async def read(low: int, high: int, more: int) -> list[Any]:
            return await self._rows(OUTCOME, "newest_seen", {"most": more, "first": low, "last": high})

        last = max(ids) if before is None else min(max(ids), before - 1)
        window = Window(FIRST_WINDOW)
        jobs, ended = await search_ids(read, most + 1, min(ids), last, window, ends=ends, clock=self.clock)
        if len(jobs) > most:
            return OutcomePage(jobs[:most], jobs[most - 1].id, unfinished=False)
        return OutcomePage(jobs, ended, unfinished=ended is not None)

    async def events(self, after: str | None, most: int, kinds: Sequence[str] | None) -> EventPage:
        """The next events after a position, of the `AMONG` next ones if they are not simply the next."""
        until = None if kinds is None and self._role is None else await self._position_after(after)
        params = {"after": after, "most": most, "kinds": None if kinds is None else list(kinds), "until": until}
        async with self._transaction() as connection:
            # The end first: what becomes readable between the two statements is read again, not left out.
            (end,) = await column_of(connection, self._database.queries["events_end"])
            found = await rows_of(connection, EventRow, self._database.queries["read_events"], params)
        if len(found) == most:
            return EventPage(found, found[-1].position, unfinished=True)
        if until is not None and as_numbers(until) < as_numbers(end):
            return EventPage(found, until, unfinished=True)
        position = max((end, *(one for one in (after,) if one), *(event.position for event in found)), key=as_numbers)
        return EventPage(found, position, unfinished=False)

    async def _position_after(self, after: str | None) -> str | None:
        """Where the events end that are looked at; None: there are no more. Asked as ourselves: it shows nothing of them."""
        if re.fullmatch(POSITION, after := after or "0-0") is None:
            return None  # it is refused with the words of SQL
        xid, number = as_numbers(after)
        params = {"xid": str(xid), "id": number, "events": AMONG}
        return first(
            [f"{row['xid']}-{row['id']}" for row in await self._database.rows(Record, "position_after", params)]
        )

    async def end(self) -> str:
        """The position after every event that can be read now."""
        async with self._transaction() as connection:
            (end,) = await column_of(connection, self._database.queries["events_end"])
        return str(end)

    async def _rows(self, make: type[Row], name: str, params: Mapping[str, Any]) -> list[Row]:
        async with self._transaction() as connection:
            return await rows_of(connection, make, self._database.queries[name], params)

    async def _duplicate(self, connection: Connection, job: Mapping[str, str | None]) -> Inserted:
        query = self._database.queries["id_of_dedupe_key"]
        found = await column_of(connection, query, {"dedupe_key": job.get("dedupe_key")})
        return Inserted(first(found), duplicate=True)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Connection]:
        async with self._database.connection() as connection, connection.transaction():
            if self._role is not None:
                try:
                    await connection.execute(self._database.queries["act_as"], {"role": self._role})
                except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
                    raise RoleError(str(error.diag.message_primary)) from error
            yield connection


def as_numbers(position: str) -> tuple[int, int]:
    """A position of events, to be compared."""
    xid, _, number = position.partition("-")
    return int(xid), int(number)


def _is_about_a_row(error: DatabaseError) -> bool:
    """Whether it says something about the job, and not about the connection."""
    cause = error.__cause__
    if isinstance(cause, UnicodeError):
        return True
    if not isinstance(cause, psycopg.Error):
        return False
    if cause.sqlstate is None:
        return isinstance(cause, psycopg.DataError)  # it could not be sent
    return cause.sqlstate[:2] in {"22", "23", "54", "P0"} or cause.diag.schema_name == "shardd"
