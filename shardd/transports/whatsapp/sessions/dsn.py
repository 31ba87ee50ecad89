"""The DSN of the session store, for its two readers.

psycopg (libpq) takes the one in the config. The library uses Go's lib/pq (1.12): only a URL is PostgreSQL to it (anything
else silently becomes a SQLite file), an unknown parameter is sent to the server as a setting, and without a timeout it waits
for ever. It supports several hosts and `target_session_attrs`, but tries one host after the other. The tables live in a
schema of their own, found by the search path.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from psycopg.conninfo import make_conninfo

from shardd.errors import DatabaseError
from shardd.postgres.dsn import WRITABLE, parse_dsn
from shardd.postgres.settings import SETTINGS

SCHEMA: Final = "shardd_sessions"

_CONNECT_TIMEOUT: Final = "5"
"""Seconds for each host, unless the DSN says otherwise."""
_SHARED: Final = (
    "application_name",
    "connect_timeout",
    "krbspn",
    "krbsrvname",
    "passfile",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
)
"""Parameters with the same name for both readers."""

_RELIED_ON: Final = (
    "array_nulls",
    "bytea_output",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "exit_on_error",
    "jit",
    "lock_timeout",
    "row_security",
    "standard_conforming_strings",
    "transform_null_equals",
)
_LIBRARY_SETTINGS: Final = {
    **{s.name: s.value for s in SETTINGS if s.name in _RELIED_ON or s.name.startswith("enable_")},
    # A session row lost in a crash of the server would reuse message keys, and recipients could not decrypt what follows.
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "60000",  # milliseconds
    "statement_timeout": "30000",
}
_ALWAYS: Final = (
    "bytea_output",
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "jit",
    "lock_timeout",
    "row_security",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
)
IDLE_SECONDS: Final = 15.0
"""The library keeps up to two idle connections per client, even of closed ones: the server ends them after this time."""
SCARCE_IDLE_SECONDS: Final = 1.0
"""The same, while the server has too few connections."""


def sessions_dsn(dsn: str) -> str:
    """The default session store: a schema of its own in the daemon's database. Raises DatabaseError for an unreadable `dsn`."""
    options = f"{_parse(dsn).get('options') or ''} -c search_path={SCHEMA}".strip()
    return make_conninfo(dsn, options=options)


def pooled_settings() -> dict[str, tuple[str, bool]]:
    """What a PgBouncer in transaction mode sets for the library on its server connections, besides the settings of the DSN.

    Each with its value, and whether it is set always, or only where it differs: a PgBouncer has no room for all of them.
    """
    return {name: (value, name in _ALWAYS) for name, value in _LIBRARY_SETTINGS.items()}


def library_dsn(dsn: str, *, pgbouncer: bool, idle: float = IDLE_SECONDS) -> str:
    """`dsn` as the URL that the library needs. Raises DatabaseError for an unreadable `dsn`.

    `idle`: seconds until the server ends an idle connection. PgBouncer in transaction mode allows neither prepared statements nor
    settings at the start of a session: it sets the search path (`connect_query`) and the lifetime of idle connections itself.
    """
    parameters = _parse(dsn)
    query = {name: parameters[name] for name in _SHARED if parameters.get(name)}
    query = {"sslmode": "prefer", "target_session_attrs": WRITABLE, "connect_timeout": _CONNECT_TIMEOUT} | query
    # Otherwise the driver prepares each statement with values in an extra round trip, and forgets it.
    query["binary_parameters"] = "yes"
    if not pgbouncer:
        query |= _LIBRARY_SETTINGS | {"idle_session_timeout": str(round(idle * 1000))}
        if options := parameters.get("options"):
            query["options"] = options
    place = _place(parameters, query)
    login = quote(parameters.get("user") or "", safe="")
    if parameters.get("password"):
        login += ":" + quote(parameters["password"], safe="")
    database = quote(parameters.get("dbname") or parameters.get("user") or "", safe="")
    return f"postgres://{login + '@' if login else ''}{place}/{database}?{urlencode(query, quote_via=quote)}"


def _place(parameters: dict[str, str], query: dict[str, str]) -> str:
    """Host and port of the URL; what a URL cannot express goes into `query`."""
    host, address, port = (parameters.get(name) or "" for name in ("host", "hostaddr", "port"))
    if "service" in query and not host and not address:
        return ""
    host, address = host or address or "/var/run/postgresql", address if host else ""
    if address or "," in host or host.startswith(("/", "@")):
        # A socket's folder, or several hosts, do not fit into a URL's host.
        query |= {"host": host, "port": port or "5432"} | ({"hostaddr": address} if address else {})
        return ""
    return (f"[{host}]" if ":" in host else host) + f":{port or 5432}"


def _parse(dsn: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in parse_dsn(dsn).items() if value is not None}
    except DatabaseError as error:
        raise DatabaseError(f"the session store's DSN cannot be read: {error}") from None
