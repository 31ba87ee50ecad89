"""The audit log: every act, with who, from where, and how it went; in the database, and as a line of the log.

The line comes first: it is there even when the database does not answer any more.
"""

from __future__ import annotations

from typing import Protocol

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.acts import DONE, Acts
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
        log.info(
            "an act of an operator",
            action="act",
            who=actor.user,
            how=actor.how,
            address=address,
            act=act,
            target=target,
            detail=detail,
            result=result,
        )
        try:
            await self._acts.record(
                who=actor.user,
                how=actor.how,
                address=address,
                act=act,
                target=target,
                detail=detail,
                result=result,
                node=self._node,
            )
        except DatabaseError as error:
            log.error("an act is missing in the audit log", action="act", act=act, target=target, error=error)
