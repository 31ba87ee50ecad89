"""What can be asked, as data: of it are made both what serves the requests and the document that describes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

from shardd.dashboard.api.guard import Caller
from shardd.dashboard.api.problems import Kind
from shardd.queue.api_tokens import May

ROOT: Final = "/api/v1"
JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
LOOK: Final = frozenset({May.LOOK, May.OPERATE})
OPERATE: Final = frozenset({May.OPERATE})
SEND: Final = frozenset({May.SEND})
ALL: Final = frozenset(May)


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was let in, and read."""

    request: web.Request
    caller: Caller
    query: Any
    """A struct of the operation's `query`."""
    body: bytes

    def path(self, name: str) -> str:
        """A part of the path."""
        return self.request.match_info[name]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with another status than 200."""

    value: Any
    status: int


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that can be asked."""

    method: str
    path: str
    """Below `ROOT`, with `{job}`, `{device}` or `{campaign}` in it."""
    name: str
    summary: str
    may: frozenset[May]
    handle: Callable[[Call], Awaitable[Any]]
    answer: Any
    """A type that msgspec has a JSON schema of."""
    about: str = ""
    query: type[msgspec.Struct] = Nothing
    body: Any = None
    """The type of the body; None: there is none."""
    body_required: bool = True
    problems: tuple[Kind, ...] = ()
    """Beside those that every operation has."""
    also: dict[int, str] = field(default_factory=dict)
    """Other statuses with this answer, and when."""
    status: int = 200
    """The usual one."""
    act: str = ""
    """What the audit log calls it; empty: it does not have it."""
    media: str = JSON
    """In which form the answer comes: of a stream, `answer` is the data of each event."""
