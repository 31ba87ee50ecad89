"""The config file of PgBouncer. Pure: a target and limits in, text out.

Its syntax (PgBouncer's src/loader.c and libusual's cfparser.c): one line for each database, whose values may be quoted by
apostrophes, doubled inside; an empty value is an error, and no value spans lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shardd.pgbouncer.errors import PgBouncerError

DATABASE: Final = "shardd_sessions"
"""The name by which clients know the target."""
USER: Final = "shardd"
"""The name under which clients come; those of the console may give commands."""
PORT: Final = 6432
"""Part of the socket's name."""
MOST_QUERY: Final = 506
"""Bytes of the statements that PgBouncer executes on each new server connection: it sends them from a buffer of 512 bytes, and
fails without a word when they do not fit (include/pktbuf.h: SEND_generic)."""
IDLE_CLIENT: Final = 15
"""Seconds after which an idle client connection is closed. The library opens another when it needs one, and never closes those
of closed clients."""


@dataclass(frozen=True, slots=True)
class Target:
    """The one server that PgBouncer connects to."""

    host: str
    """A name, an address, or the folder of a socket."""
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    sslmode: str = "disable"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Of each server connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What it may take."""

    servers: int
    """Connections to the target, at most."""
    clients: int
    """Connections from clients, at most."""


def ini_text(target: Target, limits: Limits, folder: Path) -> str:
    """The file; `folder`: of the socket. Raises PgBouncerError for what cannot be written."""
    database = {
        "host": target.host,
        "port": str(target.port),
        "dbname": target.database,
        "user": target.user,
        "password": target.password,
        "connect_query": connect_query(target.settings),
    }
    pairs = " ".join(f"{name}={_quoted(name, value)}" for name, value in database.items() if value)
    options = {
        "listen_port": PORT,
        "unix_socket_dir": folder,
        "unix_socket_mode": "0700",
        # More than connect at once: a full queue would refuse a UNIX client at once (connect(2): EAGAIN).
        "listen_backlog": 4096,
        # Who can enter the folder is the account itself or root.
        "auth_type": "any",
        "admin_users": USER,
        "pool_mode": "transaction",
        "default_pool_size": limits.servers,
        # Connections that the server gave once are kept: it may not give them again.
        "min_pool_size": min(2, limits.servers),
        "max_client_conn": limits.clients,
        # Go's driver sends it with every connection, with PostgreSQL's own default.
        "ignore_startup_parameters": "extra_float_digits",
        "client_idle_timeout": IDLE_CLIENT,
        "query_wait_timeout": 30,
        "server_connect_timeout": 5,
        "server_login_retry": 1,
        "tcp_keepidle": 10,
        "tcp_keepintvl": 5,
        "tcp_keepcnt": 3,
        "tcp_user_timeout": 15000,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
        "server_tls_sslmode": target.sslmode,
        "server_tls_ca_file": target.ca_file,
        "server_tls_cert_file": target.cert_file,
        "server_tls_key_file": target.key_file,
    }
    lines = [f"{name} = {_plain(name, str(value))}" for name, value in options.items() if str(value)]
    return "\n".join(
        ["; Written by shardd at each start.", "[databases]", f"{DATABASE} = {pairs}", "[pgbouncer]", *lines, ""]
    )


def connect_query(settings: Mapping[str, str]) -> str:
    """The statements that apply the settings; empty without any. Raises PgBouncerError if there are too many."""
    path = [value for name, value in settings.items() if name == "search_path"]
    others = [f"SET {name} TO {_literal(value)}" for name, value in settings.items() if name != "search_path"]
    # As the server shows it: a list of names, some of them quoted.
    query = ";".join(
        [f"SELECT pg_catalog.set_config('search_path',{_literal(value)},false)" for value in path] + others
    )
    if len(query.encode()) > MOST_QUERY:
        raise PgBouncerError(
            f"its connect_query is too short for what these connections need to set: {', '.join(settings)}"
        )
    return query


def _literal(text: str) -> str:
    """As SQL, whatever standard_conforming_strings says."""
    return ("E'" if "\\" in text else "'") + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _quoted(name: str, value: str) -> str:
    return "'" + _one_line(name, value).replace("'", "''") + "'"


def _plain(name: str, value: str) -> str:
    """Of an option: taken to the end of the line, without white space around it."""
    if value != value.strip():
        raise PgBouncerError(f"its config cannot express white space around the value of {name}")
    return _one_line(name, value)


def _one_line(name: str, value: str) -> str:
    if any(sign in value for sign in "\n\r\0"):
        raise PgBouncerError(f"its config cannot express a line break in the value of {name}")
    return value
