"""The address of the session store, for its two readers.

psycopg (libpq) reads what stands in the config. The library reads with Go's lib/pq (1.12): only a URL is PostgreSQL to it
(anything else silently becomes a SQLite file), an unknown parameter is sent to the server as a setting, and without a timeout
it waits for ever. It knows several hosts and `target_session_attrs`, but asks one host after the other. The tables live in
a schema of their own, found by the search path.
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
"""Parameters that both readers know by the same name."""

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
    # A session that is lost in a crash of the server would use message keys twice, and nobody could read what they hide.
    "synchronous_commit": "on",
    # Milliseconds. The library keeps up to two idle connections per client, closed ones included: the server ends them.
    "idle_session_timeout": "15000",
    "idle_in_transaction_session_timeout": "60000",
    "statement_timeout": "30000",
}


def sessions_dsn(dsn: str) -> str:
    """Where sessions are kept when the config does not say so: in the daemon's own database, in a schema of their own.

    Raises DatabaseError when `dsn` cannot be read.
    """
    options = f"{_parse(dsn).get('options') or ''} -c search_path={SCHEMA}".strip()
    return make_conninfo(dsn, options=options)


def library_dsn(dsn: str, *, pgbouncer: bool) -> str:
    """The same address as the URL that the library needs. Raises DatabaseError when `dsn` cannot be read.

    Through PgBouncer in transaction mode nothing may be prepared, and nothing may be set at the start: there the search path
    is PgBouncer's to set (`connect_query`), and so is how long an idle connection lives.
    """
    parameters = _parse(dsn)
    query = {name: parameters[name] for name in _SHARED if parameters.get(name)}
    query = {"sslmode": "prefer", "target_session_attrs": WRITABLE, "connect_timeout": _CONNECT_TIMEOUT} | query
    # Else the driver prepares each statement with values, in a round trip of its own, and forgets it.
    query["binary_parameters"] = "yes"
    if not pgbouncer:
        query |= _LIBRARY_SETTINGS
        if options := parameters.get("options"):
            query["options"] = options
    place = _place(parameters, query)
    login = quote(parameters.get("user") or "", safe="")
    if parameters.get("password"):
        login += ":" + quote(parameters["password"], safe="")
    database = quote(parameters.get("dbname") or parameters.get("user") or "", safe="")
    return f"postgres://{login + '@' if login else ''}{place}/{database}?{urlencode(query, quote_via=quote)}"


def _place(parameters: dict[str, str], query: dict[str, str]) -> str:
    """What stands in the URL for the host and its port; where one URL cannot say it, `query` does."""
    host, address, port = (parameters.get(name) or "" for name in ("host", "hostaddr", "port"))
    if "service" in query and not host and not address:
        return ""
    host, address = host or address or "/var/run/postgresql", address if host else ""
    if address or "," in host or host.startswith(("/", "@")):
        # A socket's folder, or more than one host, cannot stand where a URL has its host.
        query |= {"host": host, "port": port or "5432"} | ({"hostaddr": address} if address else {})
        return ""
    return (f"[{host}]" if ":" in host else host) + f":{port or 5432}"


def _parse(dsn: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in parse_dsn(dsn).items() if value is not None}
    except DatabaseError as error:
        raise DatabaseError(f"the session store's address cannot be read: {error}") from None
