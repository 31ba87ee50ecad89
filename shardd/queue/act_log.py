"""Writing the audit log: every act of the dashboard and of the commands, with who, from where, and how it went.

An act that is one transaction has its row in it: neither is there without the other. An act that is not is recorded as begun
before it begins, and is not done if that cannot be written; then with what came of it. Meanwhile its process says again and again
that it is still at it: when it dies, it is known that nothing is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import psycopg

from shardd.errors import DatabaseError, SharddError
from shardd.queue.acts import BEGUN, DONE, LOST_AFTER, Acts, NewAct
from shardd.queue.database import Database
from shardd.queue.queries import Queries
from shardd.tasks import end_tasks

SEEN_EVERY: Final = LOST_AFTER / 6
"""Seconds between two signs of an act that is under way."""
INTERRUPTED: Final = "interrupted"
"""The result of an act that a signal, or the end of its process, has cancelled."""
NOT_OURS: Final = (
    "this login may not write the audit log (shardd.acts), so nothing was done: what changes something needs the role that owns "
    "shardd's tables, which `database: dsn:` names"
)


class Actor(Protocol):
    """Somebody who does something: whoever signed in to the dashboard, a token of the API, or an account at a shell."""

    @property
    def user(self) -> str:
        """A name; empty: nobody that is known."""

    @property
    def how(self) -> str:
        """How they came in: link, password, proxy, token, command."""


@dataclass(slots=True)
class Acting:
    """An act that is being carried out in the database; what is set here is recorded with it."""

    database: Queries
    """The transaction of the act and its row."""
    act: str
    target: str
    detail: str
    result: str = DONE
    happened: bool = True
    """False: there was nothing to do, and nothing is recorded."""
    before: list[tuple[str, str]] = field(default_factory=list)
    """Acts that are part of it, and their targets: they are recorded before it."""


@dataclass(slots=True)
class UnderWay:
    """An act that is being carried out, and is not one transaction; what is set here is recorded at its end."""

    detail: str
    result: str = DONE


class ActLog:
    """Writes it, for one node."""

    def __init__(self, database: Database, node: str) -> None:
        self._database = database
        self._node = node

    @asynccontextmanager
    async def acting(
        self, actor: Actor, address: str, act: str, target: str, detail: str = ""
    ) -> AsyncGenerator[Acting]:
        """An act that is one transaction, with its row. Raises DatabaseError: nothing was done; and UnsureError."""
        async with self._database.transaction() as database:
            acting = Acting(database, act, target, detail)
            yield acting
            all_of_it = [
                *(self._new(actor, address, one, its_target, "", DONE) for one, its_target in acting.before),
                self._new(actor, address, acting.act, acting.target, acting.detail, acting.result),
            ]
            for new in all_of_it if acting.happened else ():
                try:
                    await Acts(database).record(new)
                except psycopg.errors.InsufficientPrivilege as error:
                    raise DatabaseError(NOT_OURS) from error
        for new in all_of_it if acting.happened else ():
            self._written(new)

    @asynccontextmanager
    async def under_way(
        self, actor: Actor, address: str, act: str, target: str, detail: str = ""
    ) -> AsyncGenerator[UnderWay]:
        """An act that is not one transaction, recorded before and after it. Raises DatabaseError: then it must not begin."""
        new = self._new(actor, address, act, target, detail, BEGUN)
        try:
            began = await Acts(self._database).begin(new)
        except DatabaseError as error:
            if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise DatabaseError(NOT_OURS) from error
            raise
        self._written(new)
        here = UnderWay(detail)
        signs = asyncio.create_task(self._give_signs(began))
        try:
            yield here
        except BaseException as error:
            if here.result == DONE:
                here.result = _why(error)
            raise
        finally:
            try:
                await end_tasks([signs])
            finally:
                await self.record(actor, address, act, target, here.detail, result=here.result, began=began)

    async def record(
        self,
        actor: Actor,
        address: str,
        act: str,
        target: str = "",
        detail: str = "",
        *,
        result: str = DONE,
        began: int | None = None,
    ) -> None:
        """Add what has happened; `began`: the id of the act that begins it. The database may be away: see `_missed`."""
        new = self._new(actor, address, act, target, detail, result)
        self._written(new)
        try:
            await Acts(self._database).record(new, began=began)
        except DatabaseError as error:
            self._missed(new, error)

    async def _give_signs(self, began: int) -> None:
        while True:
            await asyncio.sleep(SEEN_EVERY)
            try:
                await Acts(self._database).see(began)
            except DatabaseError:
                continue  # if it stays away, what came of the act cannot be recorded either

    def _new(self, actor: Actor, address: str, act: str, target: str, *more: str) -> NewAct:
        """`more`: detail, result."""
        detail, result = more
        return NewAct(actor.user, actor.how, address, act, target, detail, result, self._node)

    def _written(self, new: NewAct) -> None:
        """It is in the database, or is about to be."""

    def _missed(self, new: NewAct, error: DatabaseError) -> None:
        """It is not in the database, although it has happened."""


def _why(error: BaseException) -> str:
    """Why an act was not carried out, or not to its end."""
    if isinstance(error, SharddError):
        return str(error)
    return f"a defect of shardd: {type(error).__name__}" if isinstance(error, Exception) else INTERRUPTED
