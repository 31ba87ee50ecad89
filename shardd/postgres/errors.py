"""Errors of PostgreSQL in one sentence with the server, the cause and the fix; never a password.

A server's errors are recognized by their SQLSTATE (of a refused connection, see `shardd.postgres.refusals`), because their text
may be in any language. Errors of libpq have no code, and are in English: no other language is requested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import psycopg
from psycopg_pool import PoolTimeout

from shardd.errors import BlockedError, DatabaseError, NotMigratedError, RefusedDataError, RowRefusedError
from shardd.postgres.dsn import addresses_of, parse_dsn
from shardd.postgres.liveness import Deadline
from shardd.postgres.refusals import RefusedError, explain
from shardd.words import sentences

_SLOW: Final = "{address} did not answer in time: {slow}"
_FAR_AWAY: Final = "is it the right host, and does a firewall let the connection through?"
_ON_THIS_HOST: Final = (
    "the server there is stopped or overloaded: see its log (of the embedded one: postgres.log in the state folder)"
)
"""Of a socket: there is no host to mistake, and no firewall."""
_NOT_PROVED: Final = "{where} refuses the password of user {user}: correct the DSN"
_LOST: Final = "the connection to {where} was lost"
READ_ONLY: Final = "{where} is read-only: {writable}"
_STANDBY: Final = "name the primary server in the DSN, or, if its restore was interrupted, see: shardd guide backup"
_RESTORED: Final = (
    "if its restore was interrupted, see: shardd guide backup; if it is a standby, name the primary server in the DSN"
)
"""Of a server of this host: that may be the embedded one, of which there are no standbys."""
_NOT_MIGRATED: Final = "{where} lacks tables, columns or functions of this release: run `shardd db migrate`"

# Texts of libpq or PgBouncer, and the sentence for each. {where}, {address}, {user} and {database} are filled in.
_CONNECTING: Final = (
    ("no password supplied", _NOT_PROVED),
    (
        "not support SSL|SSL is not enabled|certificate|SSL error",
        "{where} and sslmode of the DSN do not agree about TLS",
    ),
    ("Connection refused|No such file", "nothing answers at {address}: is PostgreSQL running there?"),
    (
        "resolve host|translate host name|Name or service",
        "the host name of {address} is unknown: correct the DSN or the DNS",
    ),
    ("timeout expired|timed out", _SLOW),
    (
        "unsupported startup parameter",
        "{where} is a PgBouncer, which takes no options: for sessions, write database.sessions_dsn (config/pgbouncer.ini)",
    ),
    ("session is read-only|server is in hot standby mode", READ_ONLY),
    ("Permission denied", "this user may not use the socket {address}: run as the user that owns it"),
)

_BROKEN: Final = ("closed|lost|EOF|reset by peer|Broken pipe", _LOST)

_BY_CODE: Final[Mapping[str | None, str]] = {
    "25006": READ_ONLY,
    "25P03": _LOST,
    "28000": "{where} does not accept this user: see its pg_hba.conf",
    "28P01": _NOT_PROVED,
    "3D000": "{where} has no such database: create it (createdb --owner={user} {database})",
    "3F000": _NOT_MIGRATED,
    "42501": "{where} forbids this",
    "42703": _NOT_MIGRATED,
    "42883": _NOT_MIGRATED,
    "42P01": _NOT_MIGRATED,
    "53100": "{where} has no space left on its disk",
    "53200": "{where} has no memory left, most often because a session holds very many locks: `shardd status` may name it, and "
    "pg_locks does (SELECT pid, count(*) FROM pg_locks GROUP BY pid)",
    "53300": "{where} has no free connection: `shardd status` lists who has them, if shardd runs. Limit programs that hold too "
    "many (ALTER ROLE … CONNECTION LIMIT); if all are needed, raise its max_connections",
    "55P03": "{where} did not grant a lock in time: another program is using the table",
    "57014": "{where} did not finish a statement in time: is it overloaded, or a table locked?",
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": "{where} is starting or stopping: try again in a moment",
    "57P05": _LOST,
}
"""By SQLSTATE (PostgreSQL's documentation, appendix A)."""

_ROLE_IS_FULL: Final = (
    "user {user} has as many connections to {where} as its CONNECTION LIMIT allows: end some, or raise it"
)
_DATABASE_IS_FULL: Final = (
    "{where} has as many connections as the CONNECTION LIMIT of the database allows: end some, or raise it"
)
_DATABASE_ROUTINE: Final = "CheckMyDatabase"
"""The routine that refuses connections beyond a database's limit with 53300 (src/backend/utils/init/postinit.c)."""
_NOTIFY_FULL: Final = (
    "{where} has no room in its queue of notifications, because a listening session does not end its transaction: "
    "`shardd status` names it"
)
_NOTIFY_ROUTINE: Final = "PreCommit_Notify"
"""The routine in which a transaction fails with 54000 because that queue is full (src/backend/commands/async.c)."""
_NO_LOGIN: Final = "{where} has no user {user} that may log in: create it (createuser {user}) or correct the DSN"
_LOGIN_ROUTINE: Final = "InitializeSessionUserId"
"""The routine that refuses a role with 28000 if it does not exist or has no LOGIN, and with 53300 if it has too many connections
(src/backend/utils/init/miscinit.c)."""
_BY_ROUTINE: Final[Mapping[tuple[str | None, str | None], str]] = {
    ("28000", _LOGIN_ROUTINE): _NO_LOGIN,
    ("53300", _LOGIN_ROUTINE): _ROLE_IS_FULL,
    ("53300", _DATABASE_ROUTINE): _DATABASE_IS_FULL,
    ("54000", _NOTIFY_ROUTINE): _NOTIFY_FULL,
}
"""By SQLSTATE and the routine that reported it, where the code alone is not specific enough."""


_REFUSALS: Final = frozenset({"22", "23", "54", "P0"})
"""Classes of SQLSTATE: bad data, a constraint, a value that is too large for an index, a trigger that raises."""


def describe_error(error: BaseException, dsn: str, deadline: Deadline | None = None) -> DatabaseError:
    """The error to raise for one of psycopg, of its pool or of the operating system, which becomes its cause.

    `deadline`: the deadline of the work; once it has passed, any other error is its consequence.
    """
    if deadline is not None and deadline.passed:
        error = psycopg.errors.QueryCanceled(f"no answer within {deadline.limit:g} s")
    described = _described(error, dsn)
    described.__cause__ = error
    return described


def has_no_room(error: DatabaseError) -> bool:
    """Whether a server refused a connection because it has as many as it allows."""
    return isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate == "53300"


def is_answer(error: DatabaseError) -> bool:
    """Whether a server itself says that a statement failed; otherwise it is the connection that did."""
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and cause.diag.severity_nonlocalized == "ERROR"


def explain_refusal(error: psycopg.OperationalError) -> psycopg.OperationalError:
    """The error of a connect, with the server's code unless its text is libpq's. May block for a moment."""
    return error if any(re.search(pattern, str(error)) for pattern, _ in _CONNECTING) else explain(error)


def _described(error: BaseException, dsn: str) -> DatabaseError:
    if _is_refusal(error):
        return RowRefusedError(_text_of(error))
    sentence = _sentence(error, words_of(dsn))
    if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
        return BlockedError(sentence)
    if isinstance(error, psycopg.Error) and _BY_CODE.get(error.sqlstate) is _NOT_MIGRATED:
        return NotMigratedError(sentence)
    return (RefusedDataError if _is_bad_data(error) else DatabaseError)(sentence)


def _is_bad_data(error: BaseException) -> bool:
    if isinstance(error, UnicodeError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if (error.sqlstate, _routine(error)) in _BY_ROUTINE:
        return False
    # Without a code, psycopg itself could not send it to the server.
    return isinstance(error, psycopg.DataError) if error.sqlstate is None else error.sqlstate[:2] in _REFUSALS


def words_of(dsn: str) -> dict[str, str]:
    """The parts of a sentence about a database: its address, user and name, and `where`, which is all of them.

    `writable`: how to get one that can be written to; `slow`: why it may not have answered.
    """
    parts = parse_dsn(dsn)
    addresses = addresses_of(parts)
    address = ", ".join(addresses)
    user = str(parts.get("user") or "of the operating system")
    database = str(parts.get("dbname") or user)
    where = f"PostgreSQL at {address} (database {database}, user {user})"
    local = all(one.startswith("/") for one in addresses)
    return {
        "address": address,
        "user": user,
        "database": database,
        "where": where,
        "writable": _RESTORED if local else _STANDBY,
        "slow": _ON_THIS_HOST if local else _FAR_AWAY,
    }


def _is_refusal(error: BaseException) -> bool:
    """Whether `shardd.refuse` raised it, whose text is for whoever wrote the row."""
    return (
        isinstance(error, psycopg.IntegrityError)
        and error.diag.schema_name == "shardd"
        and bool(error.diag.message_hint)
    )


def _sentence(error: BaseException, words: Mapping[str, str]) -> str:
    template = _template(error)
    text = _text_of(error)
    if template is None:
        return f"{words['where']}: {text}"
    sentence = template.format_map(words)
    has_details = isinstance(error, psycopg.Error) and error.sqlstate and not isinstance(error, RefusedError)
    return f"{sentence} ({text})" if has_details else sentence


def _template(error: BaseException) -> str | None:
    if isinstance(error, PoolTimeout):
        return "{where}: no connection became free in time"
    if isinstance(error, TimeoutError):
        return _SLOW
    if isinstance(error, psycopg.Error) and (
        template := _BY_ROUTINE.get((error.sqlstate, _routine(error))) or _BY_CODE.get(error.sqlstate)
    ):
        return template
    if not isinstance(error, psycopg.OperationalError):
        return None
    return next((template for pattern, template in (*_CONNECTING, _BROKEN) if re.search(pattern, str(error))), None)


def _routine(error: psycopg.Error) -> str | None:
    return error.routine if isinstance(error, RefusedError) else error.diag.source_function


def _text_of(error: BaseException) -> str:
    parts: tuple[str | None, ...] = ()
    if isinstance(error, psycopg.Error):
        parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    text = sentences(*(" ".join(part.split()) for part in parts if part)).removesuffix(".")
    return text or " ".join(str(error).split()) or type(error).__name__
