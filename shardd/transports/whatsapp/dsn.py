"""The address of the session store, for its two readers.

psycopg (libpq) reads what stands in the config. The library reads with Go's lib/pq: only a URL is PostgreSQL to it (anything else
silently becomes a SQLite file), an unknown parameter is sent to the server as a setting, and sslmode is `require` unless
said otherwise. The tables live in a schema of their own, found by the search path.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardd.errors import DatabaseError

SCHEMA: Final = "shardd_sessions"
IDLE_SESSION_MS: Final = 15_000
"""The library keeps up to two idle connections per client, closed ones included: the server ends them (PostgreSQL 14+)."""

_SHARED: Final = (
    "application_name",
    "connect_timeout",
    "krbspn",
    "krbsrvname",
    "passfile",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "sslsni",
)
"""Parameters that both readers know by the same name."""

_SEARCH_PATH: Final = re.compile(r"-c\s*search_path=((?:\\.|\S)+)")


def sessions_dsn(dsn: str) -> str:
    """Where sessions are kept when the config does not say so: in the daemon's own database, in a schema of their own.

    Raises DatabaseError when `dsn` cannot be read.
    """
    parameters = _parse(dsn)
    options = f"{parameters.get('options') or ''} -c search_path={SCHEMA}".strip()
    return make_conninfo(dsn, options=options)


def library_dsn(dsn: str, *, pgbouncer: bool) -> str:
    """The same address as the URL that the library needs. Raises DatabaseError when `dsn` cannot be read.

    Through PgBouncer in transaction mode nothing may be prepared, and nothing may be set at the start: there the search path
    is PgBouncer's to set (`connect_query`), and so is how long an idle connection lives.
    """
    parameters = _parse(dsn)
    query = {name: str(parameters[name]) for name in _SHARED if parameters.get(name) is not None}
    query.setdefault("sslmode", "prefer")
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
    host, port = hosts[0], str(parameters.get("port") or "5432").split(",")[0]
    # Else the driver prepares each statement with values, in a round trip of its own, and forgets it.
    query["binary_parameters"] = "yes"
    if not pgbouncer:
        query["idle_session_timeout"] = str(IDLE_SESSION_MS)
        if found := _SEARCH_PATH.search(str(parameters.get("options") or "")):
            query["search_path"] = re.sub(r"\\(.)", r"\1", found[1])
    login = quote(str(parameters.get("user") or ""), safe="")
    if parameters.get("password") is not None:
        login += ":" + quote(str(parameters["password"]), safe="")
    database = quote(str(parameters.get("dbname") or parameters.get("user") or ""), safe="")
    if host.startswith(("/", "@")) or not host:  # a socket's folder cannot stand where a URL has its host
        query |= {"host": host or "/var/run/postgresql", "port": port}
        place = ""
    else:
        place = (f"[{host}]" if ":" in host else host) + f":{port}"
    return f"postgres://{login + '@' if login else ''}{place}/{database}?{urlencode(query, quote_via=quote)}"


def _parse(dsn: str) -> dict[str, object]:
    try:
        return dict(conninfo_to_dict(dsn))
    except ProgrammingError as error:
        raise DatabaseError(f"the session store's address cannot be read: {str(error).strip()}") from None
