"""What went wrong with PostgreSQL, in one sentence that says where, what and how to mend it; never a password.

An error while connecting carries no SQLSTATE (libpq gives text only), so these are known by the words of libpq and the server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolTimeout

from shardd.errors import DatabaseError

OLDEST_SERVER: Final = 14

# (words of libpq or the server, what to tell); {where}, {user}, {database}, {address} are filled in.
_CONNECTING: Final = (
    (r"password authentication failed|no password supplied", "{where} refuses the password of user {user}: correct it in the DSN"),
    (r'role ".*" does not exist', "{where} knows no user {user}: create it (createuser {user}) or correct the DSN"),
    (r'database ".*" does not exist', "{where} has no database {database}: create it (createdb --owner={user} {database})"),
    (r"no pg_hba.conf entry|[Pp]eer authentication failed|Ident authentication failed",
     "{where} lets user {user} in from here neither this way nor without a password: see its pg_hba.conf"),
    (r"too many (clients|connections)|remaining connection slots",
     "{where} has no free connection: raise its max_connections or close other clients"),
    (r"server does not support SSL|SSL is not enabled|certificate|SSL error", "{where} and we do not agree on TLS: see sslmode in the DSN"),
    (r"Connection refused|No such file or directory.*\n?.*socket|Is the server running|could not connect to server",
     "nothing answers at {address}: is PostgreSQL running there?"),
    (r"starting up|shutting down|recovery mode|not yet accepting", "{where} is starting or stopping: try again in a moment"),
    (r"could not translate host name|Name or service not known|failed to resolve host|Temporary failure in name",
     "the host name of {address} cannot be resolved: correct the DSN or the DNS"),
    (r"timeout expired|timed out", "{address} did not answer in time: is it the right host, and is a firewall between?"),
    (r"Permission denied", "the socket of {address} is closed to this user: run as the user that PostgreSQL's owner allows"),
)  # fmt: skip

_RUNNING: Final[Mapping[type[psycopg.Error], str]] = {
    psycopg.errors.QueryCanceled: "{where} did not finish a statement in time: is it overloaded, or is a table locked?",
    psycopg.errors.UndefinedTable: "{where} lacks shardd's tables: run `shardd db migrate`",
    psycopg.errors.InvalidSchemaName: "{where} lacks shardd's tables: run `shardd db migrate`",
    psycopg.errors.UndefinedColumn: "{where} has an older schema: run `shardd db migrate`",
    psycopg.errors.UndefinedFunction: "{where} has an older schema: run `shardd db migrate`",
    psycopg.errors.InsufficientPrivilege: "{where} forbids this to user {user}",
    psycopg.errors.ReadOnlySqlTransaction: "{where} is read-only: name the primary server in the DSN",
    psycopg.errors.DiskFull: "{where} has no space left on its disk",
    psycopg.errors.LockNotAvailable: "{where} kept a lock from us for too long: another program uses the table",
}


def parse_dsn(dsn: str) -> dict[str, Any]:
    """The parts of a DSN (libpq URL or key=value), with the environment's PGHOST and the like where it is silent."""
    try:
        return conninfo_to_dict(dsn)
    except psycopg.Error:
        # What libpq says quotes a part of the text, which may be the password.
        raise DatabaseError(
            "the DSN is neither a URL such as postgresql://user:password@host/database nor key=value pairs such as "
            "'host=… dbname=… user=…'"
        ) from None


def describe_error(error: BaseException, dsn: str) -> DatabaseError:
    """The error to raise for one of psycopg's, of its pool's or of the operating system's; the cause is kept."""
    if isinstance(error, DatabaseError):
        return error
    words = _words(parse_dsn(dsn))
    described = DatabaseError(_sentence(error, words))
    described.__cause__ = error
    return described


def _words(parts: Mapping[str, Any]) -> dict[str, str]:
    host = str(parts.get("host") or parts.get("hostaddr") or "the local socket")
    port = str(parts.get("port") or 5432)
    user = str(parts.get("user") or "of the operating system")
    address = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host}:{port}"
    database = str(parts.get("dbname") or user)
    return {
        "address": address, "user": user, "database": database,
        "where": f"PostgreSQL at {address} (database {database}, user {user})",
    }  # fmt: skip


def _sentence(error: BaseException, words: Mapping[str, str]) -> str:
    if isinstance(error, PoolTimeout):
        return "{where}: no connection became free in time".format(**words)
    if isinstance(error, TimeoutError):
        return "{address} did not answer in time: is it the right host, and is a firewall between?".format(**words)
    raw = " ".join(str(error).split())
    if not isinstance(error, psycopg.Error):
        return f"{words['where']}: {raw or type(error).__name__}"
    for kind, sentence in _RUNNING.items():
        if isinstance(error, kind):
            return f"{sentence.format(**words)} ({_said(error)})"
    if error.sqlstate is not None and error.sqlstate[:2] not in {"08", "28", "3D", "53", "57"}:
        return f"{words['where']} refuses: {_said(error)}"
    for pattern, sentence in _CONNECTING:
        if re.search(pattern, str(error)):
            return sentence.format(**words)
    if re.search(r"terminat|closed|lost|EOF|reset by peer|Broken pipe", raw):
        return f"the connection to {words['where']} was lost: {raw}"
    return f"{words['where']}: {raw}"


def _said(error: psycopg.Error) -> str:
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part) or " ".join(str(error).split())
