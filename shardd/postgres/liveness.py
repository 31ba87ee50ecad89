"""Whether a connection to PostgreSQL is alive, and an end to every wait on one that is not.

At a deadline the socket is shut down, which ends every wait on it at once. Cancelling would itself wait for the server, and a
frozen server or a network that swallows packets does not answer a cancel request either.

An idle connection is judged by its socket: unexpected data on it means that the server closed the connection. That costs a system
call and no round trip, so it can be checked before each use.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

KEEPALIVE: Final[Mapping[str, Any]] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Seconds, seconds and probes until a silent peer is given up; ignored on a UNIX socket."""


class Deadline:
    """Shuts down a connection's socket `limit` seconds from now, unless cancelled before."""

    def __init__(self, connection: AsyncConnection[TupleRow], limit: float) -> None:
        self.limit = limit
        self.passed = False
        self._connection = connection
        self._timer = asyncio.get_running_loop().call_later(limit, self._pass)

    def cancel(self) -> None:
        """The work is done."""
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        shut_down(self._connection)


def shut_down(connection: AsyncConnection[TupleRow]) -> None:
    """End every wait on this connection, whoever waits."""
    try:
        # A duplicate, because closing the Python object must not close libpq's descriptor.
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as twin:
            twin.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        return  # it is closed already


def is_fresh(connection: AsyncConnection[TupleRow]) -> bool:
    """Whether an idle connection still has its server."""
    try:
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        for _ in range(4):  # a closing message, then the end of the stream
            if not poll.poll(0):
                break
            connection.pgconn.consume_input()
    except (psycopg.Error, OSError):
        return False
    return not connection.closed
