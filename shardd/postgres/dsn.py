"""DSNs, as a libpq URL or key=value pairs, which may name several servers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardd.errors import DatabaseError

WRITABLE: Final = "read-write"
"""`target_session_attrs` of a connection for writing: neither a standby nor a server that was made read-only."""

_PER_HOST: Final = ("host", "hostaddr", "port")
_FILES: Final = ("PGSERVICEFILE", "PGSYSCONFDIR")
"""The places of service files, which no part of a DSN can name."""


def parse_dsn(dsn: str) -> dict[str, Any]:
    """The parts of a DSN. Raises DatabaseError."""
    try:
        return conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq's error quotes a part of the text, which may be the password.
        raise DatabaseError(
            "the DSN is neither a URL such as postgresql://user:password@host/database nor key=value pairs such as "
            "'host=… dbname=… user=…'"
        ) from None


def complete_dsn(dsn: str) -> str:
    """The DSN with what libpq would take from the environment (PGHOST, PGPASSWORD, PGOPTIONS …). Raises DatabaseError.

    So that it means the same to a process without these variables, and to a library other than libpq.
    """
    found = {
        option.keyword.decode(): option.val.decode()
        for option in pq.Conninfo.get_defaults()
        if option.val and option.envvar and option.envvar.decode() in os.environ
    }
    return make_conninfo("", **(found | parse_dsn(dsn)))


def without_libpq(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables that `complete_dsn` reads: the WhatsApp library refuses some that libpq knows."""
    return {name: value for name, value in environ.items() if not name.startswith("PG") or name in _FILES}


def reorder_hosts(dsn: str, order: Sequence[int]) -> str:
    """The DSN with its servers in another order, given by their indices. Raises DatabaseError."""
    parts = parse_dsn(dsn)
    moved = {}
    for name in _PER_HOST:
        values = str(parts.get(name) or "").split(",")
        if len(values) > 1:
            moved[name] = ",".join(values[index] for index in order)
    return make_conninfo(dsn, **moved)


def split_hosts(dsn: str) -> list[str]:
    """One DSN for each server that `dsn` names, in its order; a single port is the port of all. Raises DatabaseError."""
    parts = parse_dsn(dsn)
    given = {name: str(parts[name]).split(",") for name in _PER_HOST if parts.get(name)}
    count = max((len(values) for name, values in given.items() if name != "port"), default=1)
    for name, values in given.items():
        if len(values) != count and (name != "port" or len(values) != 1):
            raise DatabaseError(
                f"the DSN names {count} hosts and {len(values)} values of {name}: write one for each host"
            )
    if count == 1:
        return [dsn]
    columns = [[(name, value) for value in islice(cycle(values), count)] for name, values in given.items()]
    return [make_conninfo(dsn, **dict(server)) for server in zip(*columns, strict=True)]


def addresses_of(parts: dict[str, Any]) -> list[str]:
    """host:port, or the path of a socket, of each server of a parsed DSN."""
    hosts = str(parts.get("host") or parts.get("hostaddr") or "").split(",")
    ports = str(parts.get("port") or "5432").split(",")
    return [_address(host, port) for host, port in zip(hosts, islice(cycle(ports), len(hosts)), strict=True)]


def _address(host: str, port: str) -> str:
    port = port or "5432"
    if not host:
        return f"the default socket:{port}"
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host}:{port}"


def server_of(dsn: str) -> str:
    """The servers and the database of a DSN, without its password: host:port/database. Raises DatabaseError."""
    parts = parse_dsn(dsn)
    return f"{','.join(addresses_of(parts))}/{parts.get('dbname', parts.get('user', ''))}"
