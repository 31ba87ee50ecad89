"""The SQLSTATE of a refused connection.

libpq returns a refusal as text, in the language of the server, without its SQLSTATE. The code is in the server's message, and
libpq can trace messages: so for a refusal that libpq does not explain itself, the connection is tried once more with the trace
on. The result is cached by the text of the refusal.
"""

from __future__ import annotations

import os
import re
import select
import time
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

PATIENCE: Final = 3.0
"""Seconds for the second attempt, which usually fails as quickly as the first."""

_ERROR: Final = re.compile(
    rb'^B\t\d+\tErrorResponse\t S "[^"]*" V "[A-Z]*" C "([0-9A-Z]{5})"(?:.* R "(\w+)" )?', re.MULTILINE
)
_WAITS: Final = {pq.PollingStatus.READING: select.POLLIN, pq.PollingStatus.WRITING: select.POLLOUT}
_KEPT: Final = 64

_known: dict[str, RefusedError] = {}


class RefusedError(psycopg.OperationalError):
    """A server refused a connection, with the `sqlstate` and the `routine` of its source."""

    def __init__(self, text: str, sqlstate: str, routine: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate
        self.routine = routine


def explain(error: psycopg.OperationalError) -> psycopg.OperationalError:
    """The same error with its code, if the server gives one. Blocks for up to PATIENCE seconds; raises nothing."""
    text = str(error)
    if text not in _known and error.pgconn is not None and (found := _ask_again(error.pgconn)) is not None:
        while len(_known) >= _KEPT:
            del _known[next(iter(_known))]
        _known[text] = RefusedError(text, *found)
    return _known.get(text, error)


def _ask_again(failed: pq.abc.PGconn) -> tuple[str, str] | None:
    # With the address that was looked up before: libpq waits for the DNS without limit.
    parts = {option.keyword.decode(): option.val.decode() for option in failed.info if option.val}
    trace = os.memfd_create("trace")  # in memory alone: a password may be in it
    try:
        connection = pq.PGconn.connect_start(make_conninfo("", **parts).encode())
        connection.trace(trace)
        connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
        _wait(connection)
        connection.untrace()
        connection.finish()
        found = _ERROR.findall(os.pread(trace, 1 << 16, 0))
    except (psycopg.Error, OSError):
        return None
    finally:
        os.close(trace)
    return (found[-1][0].decode(), found[-1][1].decode()) if found else None


def _wait(connection: pq.abc.PGconn) -> None:
    end = time.monotonic() + PATIENCE
    while (status := connection.connect_poll()) in _WAITS:
        poll = select.poll()
        poll.register(connection.socket, _WAITS[pq.PollingStatus(status)])
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            return
