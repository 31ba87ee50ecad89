"""The audit log of the dashboard: in the database (`shardd.queue.act_log`), and as a line of the log.

Signing in and out needs no database: nobody waits for its row, see `late_rows`.

Nobody fills it by what everybody may do as often as they like: of each user and token, some refusals of an hour are recorded, and
the others counted; and so are sign-ins and -outs, which the log has all.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict
from typing import Final

from shardd.bounded import remember
from shardd.dashboard.late_rows import LateRows
from shardd.dashboard.ration import Ration
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.queue.act_log import ActLog, Actor
from shardd.queue.acts import DONE, NewAct, joined
from shardd.queue.database import Database

log = get_logger(__name__)

RATION: Final = 60
"""Refusals of a user or a token that are recorded in an hour, and as many sign-ins and -outs; of more, the number is."""
REMEMBERED: Final = 1000
"""Users and tokens whose refusals are counted; the one that was refused longest ago makes room. As many for sign-ins."""
_Rations = OrderedDict[tuple[str, str], Ration]


class Audit(ActLog):
    """Writes it."""

    def __init__(self, database: Database, node: str) -> None:
        super().__init__(database, node)
        self._refusals: _Rations = OrderedDict()
        self._signings: _Rations = OrderedDict()
        self._late = LateRows(database, self._missed)

    async def refuse(self, actor: Actor, address: str, act: str, target: str, detail: str, *, why: str) -> None:
        """Add that somebody was refused, unless that happened too often lately."""
        more = _take(self._refusals, actor)
        if more is not None:
            detail = joined(detail, f"and {more:,} more refused before" if more else "")
            await self.record(actor, address, act, target, detail, result=why)

    async def signed(self, actor: Actor, address: str, act: str, detail: str = "") -> None:
        """Add that somebody signed in or out; only the log has it if that happened too often lately."""
        more = _take(self._signings, actor)
        if more is None:
            self._written(self._new(actor, address, act, "", detail, DONE))
        else:
            await self.record_late(actor, address, act, joined(detail, f"and {more:,} more before" if more else ""))

    async def record_late(self, actor: Actor, address: str, act: str, detail: str, *, result: str = DONE) -> None:
        """As `record`, of what needs no database: it is written when that answers."""
        new = self._new(actor, address, act, "", detail, result)
        self._written(new)
        await self._late.add(new)

    async def close(self) -> None:
        """Write what still waits, if that is possible at once."""
        await self._late.close()

    def _written(self, new: NewAct) -> None:
        log.info("an act of an operator", action="act", **asdict(new))

    def _missed(self, new: NewAct, error: SharddError) -> None:
        log.error("an act is missing in the audit log", action="act", act=new.act, target=new.target, error=error)


def _take(rations: _Rations, actor: Actor) -> int | None:
    """As `Ration.take`, of whom it is."""
    who = (actor.how, actor.user)
    ration = rations.get(who) or Ration(RATION)
    remember(rations, who, ration, REMEMBERED)
    return ration.take()
