"""The audit log: every act, with who, from where, and how it went; in the database, and as a line of the log.

An act in the database and its row are one transaction: neither is there without the other. An act that is not one transaction is
recorded as begun before it begins, and is not done if that cannot be written. Signing in and out does not wait for the database:
while that is away, only the log has it.

Who is refused again and again fills neither: of each user and token, some refusals of an hour are recorded, and the others
counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Final, Protocol

from shardd.bounded import remember
from shardd.dashboard.ration import Ration
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.acts import BEGUN, DONE, Acts, NewAct
from shardd.queue.database import Database
from shardd.queue.queries import Queries

log = get_logger(__name__)

REFUSED: Final = 60
"""Refusals of a user or a token that are recorded in an hour; of more, the number is."""
REMEMBERED: Final = 1000
"""Users and tokens whose refusals are counted; the one that was refused longest ago makes room."""


class Actor(Protocol):
    """Somebody who does something: a `SignIn`, or a token of the API."""

    @property
    def user(self) -> str:
        """A name; empty: nobody that is known."""

    @property
    def how(self) -> str:
        """How they signed in: link, password, proxy, token."""


@dataclass(slots=True)
class Acting:
    """An act that is being carried out in the database; what is set here is recorded with it."""

    database: Queries
    """The transaction of the act and its row."""
    act: str
    target: str
    detail: str
    result: str = DONE
    before: list[tuple[str, str]] = field(default_factory=list)
    """Acts that are part of it, and their targets: they are recorded before it."""


class Audit:
    """Writes it."""

    def __init__(self, database: Database, node: str) -> None:
        self._database = database
        self._node = node
        self._rations: OrderedDict[tuple[str, str], Ration] = OrderedDict()

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
            for new in all_of_it:
                await Acts(database).record(new)
        for new in all_of_it:
            _write_line(new)

    async def begin(self, actor: Actor, address: str, act: str, target: str, detail: str = "") -> None:
        """An act begins that is not one transaction; `record` what came of it. Raises SharddError: then it must not begin."""
        new = self._new(actor, address, act, target, detail, BEGUN)
        await Acts(self._database).record(new)
        _write_line(new)

    async def record(
        self, actor: Actor, address: str, act: str, target: str = "", detail: str = "", *, result: str = DONE
    ) -> None:
        """Add what has happened. Without the database, only the line of the log has it."""
        new = self._new(actor, address, act, target, detail, result)
        _write_line(new)
        try:
            await Acts(self._database).record(new)
        except DatabaseError as error:
            log.error("an act is missing in the audit log", action="act", act=act, target=target, error=error)

    async def refuse(self, actor: Actor, address: str, act: str, target: str, detail: str, *, why: str) -> None:
        """Add that somebody was refused, unless that happened too often lately."""
        who = (actor.how, actor.user)
        ration = self._rations.get(who) or Ration(REFUSED)
        remember(self._rations, who, ration, REMEMBERED)
        more = ration.take()
        if more is not None:
            detail = "; ".join(filter(None, (detail, f"and {more:,} more refused before" if more else "")))
            await self.record(actor, address, act, target, detail, result=why)

    def _new(self, actor: Actor, address: str, act: str, target: str, *more: str) -> NewAct:
        """`more`: detail, result."""
        detail, result = more
        return NewAct(actor.user, actor.how, address, act, target, detail, result, self._node)


def _write_line(new: NewAct) -> None:
    log.info("an act of an operator", action="act", **asdict(new))
