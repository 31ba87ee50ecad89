"""Tokens of programs that ask by JSON: the statements of `sql/api_tokens.sql` as typed calls.

They are in the database, so every node knows them, and a token that is removed ends with that commit.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from shardd.queue.queries import Record, Statements, first

PREFIX: Final = "shardd_"
"""By which a token that lies around is recognized, by people and by scanners of secrets."""
FORM: Final = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
PRODUCERS: Final = "shardd_producer"
"""The role of a sending token that names no other: it has the rights of every producer, and no bindings."""


class May(StrEnum):
    """What a token is for."""

    LOOK = "look"
    OPERATE = "operate"  # and look
    SEND = "send"  # and see what its role sees


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token, without the token itself; `role`: as which one for sending acts."""

    name: str
    may: May
    role: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    """To within a minute."""
    expired: bool


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made: the only moment at which it can be read."""

    token: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Acting:
    """Whether shardd may act as a role, and the statements that change that."""

    is_there: bool
    may_act: bool
    grant_role: str
    create_role: str


class ApiTokens(Statements):
    """Every call raises DatabaseError."""

    async def add(
        self, name: str, may: May, *, role: str | None, created_by: str, lives: float | None
    ) -> NewToken | None:
        """Make a token that lives so many seconds, or for ever; None: there is one of this name."""
        token = PREFIX + secrets.token_urlsafe(32)
        params = {"name": name, "sha256": digest(token), "may": may.value, "role": role, "created_by": created_by}
        found = first(await self._database.rows(Record, "add_api_token", {**params, "lives": lives}))
        return None if found is None else NewToken(token, found["expires_at"])

    async def all(self) -> list[ApiToken]:
        """All of them, by name."""
        return await self._database.rows(_token, "list_api_tokens")

    async def remove(self, names: Collection[str]) -> set[str]:
        """End tokens; returns the names of those that existed."""
        return await self._ids("remove_api_tokens", {"names": list(names)})

    async def use(self, hashed: Collection[bytes]) -> dict[bytes, ApiToken]:
        """Those with these digests, which may have expired."""
        rows = await self._database.rows(Record, "use_api_tokens", {"sha256": list(hashed)})
        return {bytes(row.pop("sha256")): _token(**row) for row in rows}

    async def acting(self, role: str) -> Acting:
        """Whether shardd may act as a role."""
        (found,) = await self._database.rows(Acting, "may_act_as", {"role": role})
        return found


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _token(*, may: str, **fields: object) -> ApiToken:
    return ApiToken(may=May(may), **fields)  # type: ignore[arg-type]  # the columns of the statement
