"""What can go wrong with a request, each kind with its status and a stable name (RFC 9457, Problem Details for HTTP APIs)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from aiohttp import web

from shardd.dashboard.brief import brief
from shardd.dashboard.shares import TooManyError
from shardd.errors import (
    DatabaseError,
    NotRunningError,
    NotStartedError,
    SharddError,
    UnreachableError,
    UnsureError,
    UsageError,
)
from shardd.queue.sending import NewJobError, RoleError
from shardd.words import sentences

MEDIA_TYPE: Final = "application/problem+json"
WHERE: Final = "/api/v1/problems/"
"""The type of a problem is this and its name: an address at which it is described."""
CHALLENGE: Final = "WWW-Authenticate"
AGAIN: Final = "5"
"""Seconds after which what is busy or away may be asked again."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem."""

    name: str
    status: int
    title: str
    means: str
    """For whoever writes a program: what it says about the request, and what to do."""

    @property
    def type(self) -> str:
        """Its URI."""
        return WHERE + self.name


NO_TOKEN: Final = Kind("no-token", 401, "No token", "Send the header `Authorization: Bearer shardd_…`.")
BAD_TOKEN: Final = Kind(
    "bad-token",
    401,
    "The token does not work",
    "It was removed, has expired, or never existed: ask an operator for one.",
)
TOKEN_IN_ADDRESS: Final = Kind(
    "token-in-address",
    400,
    "A token in the address",
    "Addresses are logged: replace this token, and send the new one as a header.",
)
NOT_ALLOWED: Final = Kind(
    "not-allowed", 403, "Not for this token", "The token is for something else: ask an operator for one."
)
NOT_BOUND: Final = Kind(
    "not-bound",
    403,
    "Not bound",
    "The role of the token is not bound to this device, group or campaign: nothing was inserted.",
)
ROLE: Final = Kind(
    "role",
    403,
    "The role cannot be used",
    "An administrator of the database must let shardd act as the role of the token.",
)
NO_SUCH: Final = Kind("not-found", 404, "Not found", "There is no such thing, or the token's role may not see it.")
METHOD: Final = Kind("method", 405, "Another method", "The header Allow has the methods of this address.")
CONFLICT: Final = Kind(
    "conflict", 409, "Not in this state", "What was asked for cannot be done to this thing any more."
)
MISDIRECTED: Final = Kind(
    "misdirected",
    421,
    "Another name",
    "The address has a name that is not this one's: an operator sets dashboard.origin.",
)
TOO_LARGE: Final = Kind("too-large", 413, "Too large", "Nothing was done. Send it in parts.")
MEDIA: Final = Kind("media-type", 415, "Not JSON", "Send application/json, in UTF-8, not compressed.")
MALFORMED: Final = Kind(
    "malformed", 400, "The request cannot be read", "Nothing was done. The sentence says what is wrong with it."
)
INVALID: Final = Kind("invalid", 422, "A field is not valid", "Nothing was done. Correct the field that is named.")
REFUSED: Final = Kind(
    "refused",
    422,
    "The database refuses a job",
    "Nothing was inserted, of all jobs of the request. Correct the field, and send them again.",
)
UNSURE: Final = Kind(
    "unsure",
    503,
    "Done or not",
    "The connection to the database was lost at the end: all of it was done, or nothing. Look before you do it again. Jobs that "
    "have a dedupe_key each can be sent again without a look.",
)
BROKEN_OFF: Final = Kind(
    "broken-off",
    503,
    "Done in part",
    "The sentence says how much was done, which stays so. Send the request again later.",
)
DATABASE: Final = Kind(
    "database", 503, "The database does not answer", "Nothing was changed. Send the request again later."
)
SUPERVISOR: Final = Kind(
    "supervisor", 503, "shardd does not answer", "The supervisor of this node does not answer. Ask again later."
)
COUNTING: Final = Kind("counting", 503, "Not counted", "There are no numbers yet. Ask again later.")
TOO_MANY: Final = Kind(
    "too-many-requests", 429, "Too many at once", "Nothing was done. Ask again when others have their answer."
)
DEFECT: Final = Kind("defect", 500, "A defect of shardd", "The log of shardd has the details. Please report it.")

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in list(globals().values()) if isinstance(kind, Kind)}
ALWAYS: Final = (
    *(NO_TOKEN, BAD_TOKEN, TOKEN_IN_ADDRESS, NOT_ALLOWED),
    *(MALFORMED, METHOD, MISDIRECTED, TOO_MANY, DATABASE, DEFECT),
)
"""What every operation may answer with."""
WITH_BODY: Final = (TOO_LARGE, MEDIA)
"""And those that take a body."""


_WORDS: Final[Sequence[tuple[type[SharddError], tuple[Kind, str]]]] = (
    (RoleError, (ROLE, "shardd cannot act as the role of this token: {error}; `shardd token add` says what lets it")),
    (UnsureError, (UNSURE, "it is not known whether this was done: look before you do it again ({error})")),
    (UsageError, (INVALID, "{error}")),
    (TooManyError, (TOO_MANY, "{error}")),
    (NotRunningError, (SUPERVISOR, "{error}")),
    (NotStartedError, (SUPERVISOR, "{error}")),
    (UnreachableError, (SUPERVISOR, "{error}")),
)
"""For errors that are not those of the database."""


class ProblemError(Exception):
    """The request is answered with a problem."""

    def __init__(self, kind: Kind, detail: str, **members: Any) -> None:
        """`members`: what programs read: field, value, fix, index."""
        detail = brief(detail)
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        given = {name: value for name, value in members.items() if value is not None}
        self.members = {name: brief(value) if isinstance(value, str) else value for name, value in given.items()}
        self.headers: dict[str, str] = {}


def answer(problem: ProblemError) -> web.Response:
    """The response."""
    kind = problem.kind
    body = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": problem.detail, **problem.members}
    response = web.Response(
        body=json.dumps(body, ensure_ascii=False).encode(errors="replace"), status=kind.status, content_type=MEDIA_TYPE
    )
    response.headers.update(problem.headers)
    if kind.status in (429, 503) and kind is not UNSURE:  # whoever only waits would do it twice
        response.headers.setdefault("Retry-After", AGAIN)
    if kind.status == 401:
        error = "" if kind is NO_TOKEN else ', error="invalid_token"'
        response.headers[CHALLENGE] = f'Bearer realm="shardd"{error}'
    return response


def problem_of(error: SharddError) -> ProblemError:
    """The problem for an error of ours."""
    if isinstance(error, NewJobError):
        return _refused(error)
    if isinstance(error, DatabaseError):
        return _of_database(error)
    kind, words = next((found for kind, found in _WORDS if isinstance(error, kind)), (DEFECT, "{error}"))
    return ProblemError(kind, words.format(error=error))


def _of_database(error: DatabaseError) -> ProblemError:
    cause = error.__cause__
    if isinstance(cause, psycopg.Error) and cause.diag.schema_name == "shardd" and cause.diag.column_name:
        members = {"field": cause.diag.column_name, "fix": cause.diag.message_hint}
        return ProblemError(INVALID, _words(cause), **members)
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return ProblemError(ROLE, f"the role of this token lacks a right: {cause.diag.message_primary}")
    return ProblemError(DATABASE, f"the database does not answer: {error}")


def _refused(error: NewJobError) -> ProblemError:
    """In the words in which SQL has them."""
    cause = error.cause.__cause__
    if not isinstance(cause, psycopg.Error):
        return ProblemError(REFUSED, f"a text cannot be stored: {cause}", index=error.index)
    diag = cause.diag
    kind = NOT_BOUND if isinstance(cause, psycopg.errors.InsufficientPrivilege) else REFUSED
    return ProblemError(kind, _words(cause), field=diag.column_name, fix=diag.message_hint, index=error.index)


def _words(cause: psycopg.Error) -> str:
    parts = (cause.diag.message_primary or str(cause), cause.diag.message_detail, cause.diag.message_hint)
    return sentences(*parts).removesuffix(".")
