"""The audit log: every act, with who, from where, and how it went; in the database, and as a line of the log.

The line comes first: it is there even when the database does not answer any more.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.acts import DONE, Acts, NewAct
from shardd.queue.database import Database

log = get_logger(__name__)


class Actor(Protocol):
    """Somebody who does something: a `SignIn`, or a token of the API."""

    @property
    def user(self) -> str:
        """A name; empty: nobody that is known."""

    @property
    def how(self) -> str:
        """How they signed in: link, password, proxy, token."""


class Audit:
    """Writes it."""

    def __init__(self, database: Database, node: str) -> None:
        self._acts = Acts(database)
        self._node = node

    async def record(
        self, actor: Actor, address: str, act: str, target: str = "", detail: str = "", *, result: str = DONE
    ) -> None:
        """Add an act. Without the database, only the line of the log has it."""
        new = NewAct(actor.user, actor.how, address, act, target, detail, result, self._node)
        log.info("an act of an operator", action="act", **asdict(new))
        try:
            await self._acts.record(new)
        except DatabaseError as error:
            log.error("an act is missing in the audit log", action="act", act=act, target=target, error=error)
