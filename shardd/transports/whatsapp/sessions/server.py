"""The server of the session store, as a PgBouncer in front of it needs to know it: the primary, and what that has to give.

Everything is taken from a connection of libpq, so that service files, password files, several hosts and the environment mean the
same as without PgBouncer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from shardd.errors import DatabaseError
from shardd.pgbouncer import PgBouncerError, Target
from shardd.postgres.dsn import split_hosts
from shardd.postgres.errors import describe_error
from shardd.postgres.liveness import Deadline
from shardd.postgres.servers import Connection, Servers
from shardd.postgres.sql_files import query_text
from shardd.transports.whatsapp.sessions.dsn import pooled_settings
from shardd.transports.whatsapp.sessions.store import QUERY_TIMEOUT, connect, terms

FRESH_SECONDS: Final = 10.0
"""With several hosts, all are asked again after this time: one may have been promoted while the earlier primary still answers."""
_FILES: Final = (("sslrootcert", "root.crt"), ("sslcert", "postgresql.crt"), ("sslkey", "postgresql.key"))
"""Parameters, and their defaults below ~/.postgresql (libpq's documentation, SSL support)."""
_UNSUPPORTED: Final = ("sslcrl", "sslcrldir", "sslpassword")
"""Parameters of a TLS connection that PgBouncer lacks."""


class StoreServer:
    """Asks the primary, over one connection."""

    def __init__(self, dsn: str) -> None:
        """`dsn`: of the store, complete. Raises DatabaseError if it cannot be read."""
        self._servers = Servers(dsn, replace(terms(), row_factory=dict_row))
        self._several = len(split_hosts(dsn)) > 1
        self._connection: Connection | None = None
        self._connected_at = 0.0

    async def target(self) -> Target:
        """The primary, as PgBouncer reaches it. Raises DatabaseError when there is none, PgBouncerError if it cannot."""
        connection = await self._primary()
        wanted = pooled_settings()
        parameters = {
            "names": list(wanted),
            "values": [value for value, _ in wanted.values()],
            "always": [always for _, always in wanted.values()],
        }
        rows = await self._rows(connection, "pooled_settings", parameters)
        return target_of(connection, {row["name"]: row["value"] for row in rows})

    async def free_connections(self, names: Sequence[str]) -> int:
        """How many connections the server has for this login, less those of others; `names`: applications that are ours."""
        # PostgreSQL cuts them off (NAMEDATALEN).
        cut = [name.encode()[:63].decode(errors="ignore") for name in names]
        (row,) = await self._rows(await self._primary(), "connection_budget", {"names": cut})
        return int(row["free"])

    async def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _primary(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = self._connection
        fresh = not self._several or loop.time() < self._connected_at + FRESH_SECONDS
        if connection is not None and fresh and self._servers.is_current(connection):
            with suppress(DatabaseError):
                await self._servers.check(connection)
                return connection
        await self.close()
        self._connection, self._connected_at = await self._servers.connect(), loop.time()
        return self._connection

    async def _rows(self, connection: Connection, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        deadline = Deadline(connection, QUERY_TIMEOUT)
        try:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(query_text("shardd.transports.whatsapp.sessions", name), parameters)
                return await cursor.fetchall()
        except psycopg.Error as error:
            await self.close()
            raise describe_error(error, self._servers.dsn, deadline) from error
        finally:
            deadline.cancel()


async def search_path_through(dsn: str) -> str:
    """The search path of connections through a pooler. Raises DatabaseError."""
    async with await connect(dsn, timeout=QUERY_TIMEOUT) as connection:
        try:
            row = await (
                await connection.execute(query_text("shardd.transports.whatsapp.sessions", "search_path"))
            ).fetchone()
        except psycopg.Error as error:
            raise describe_error(error, dsn) from error
    assert row is not None
    return str(row["search_path"])


def target_of(connection: psycopg.AsyncConnection[Any], settings: dict[str, str]) -> Target:
    """The server of a connection, with what it logged in with. Raises PgBouncerError."""
    info = connection.info
    given = info.get_parameters()
    sslmode = given.get("sslmode", "prefer")
    files: dict[str, str] = {}
    if info.host.startswith(("/", "@")):
        sslmode = "disable"
    elif connection.pgconn.ssl_in_use:
        if lacking := [name for name in _UNSUPPORTED if given.get(name)]:
            raise PgBouncerError(f"it does not support {lacking[0]} of the DSN")
        files = {name: found for name, default in _FILES if (found := given.get(name) or _default_file(default))}
        if files.get("sslrootcert") == "system":
            files["sslrootcert"] = ssl.get_default_verify_paths().cafile or ""
        if sslmode == "require" and "sslrootcert" in files:
            sslmode = "verify-ca"  # as libpq does
    return Target(
        # The address that answered, because a name may have several; only a certificate is checked against the name.
        host=info.host if sslmode == "verify-full" else info.hostaddr or info.host,
        port=info.port,
        database=info.dbname,
        user=info.user,
        password=info.password,
        sslmode=sslmode,
        ca_file=files.get("sslrootcert", ""),
        cert_file=files.get("sslcert", ""),
        key_file=files.get("sslkey", ""),
        settings=settings,
    )


def _default_file(name: str) -> str | None:
    try:
        file = Path.home() / ".postgresql" / name
        return str(file) if file.is_file() else None
    except (OSError, RuntimeError):
        return None
