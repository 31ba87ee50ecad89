"""Creates the library's tables, once, before any worker starts.

Only the library knows its tables, and it makes them while it connects, without a lock: two processes on an empty database fail
with duplicate keys. So one process of its own does nothing but that (`python -m shardd.transports.whatsapp.store_setup`), under
a lock, and ends. The supervisor never loads the library. The address comes through the environment: arguments can be read by
everybody.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
from typing import Any, Final

import psycopg
from psycopg import sql as composing

from shardd.errors import DatabaseError
from shardd.transports.whatsapp import sql
from shardd.transports.whatsapp.dsn import library_dsn
from shardd.transports.whatsapp.sessions import connect

TIMEOUT: Final = 60.0
DSN_VARIABLE: Final = "SHARDD_SESSIONS_DSN"
PGBOUNCER_VARIABLE: Final = "SHARDD_SESSIONS_PGBOUNCER"


async def prepare_store(dsn: str, *, pgbouncer: bool = False) -> None:
    """Make the session store ready: schema, tables, nobody else's rights. Does nothing where all is there already.

    `dsn`: as psycopg reads it. Runs the library in a process of its own and waits for its end. Raises DatabaseError.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        env={**os.environ, DSN_VARIABLE: dsn, PGBOUNCER_VARIABLE: "1" if pgbouncer else ""},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, noise = await process.communicate()
    except TimeoutError:
        raise DatabaseError(f"the session store was not ready within {TIMEOUT:g} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode == 0:
        return
    try:
        error = json.loads(output.splitlines()[-1])["error"]
    except (IndexError, ValueError, KeyError):
        last = noise.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        error = last[0]
    raise DatabaseError(f"the session store cannot be prepared: {error}")


async def _prepare(dsn: str, *, pgbouncer: bool) -> None:
    async with await connect(dsn) as locked, await connect(dsn) as other, locked.transaction():
        await locked.execute(sql.load("lock_store"))
        # The library is another client and finds only what is committed: so not in the locked transaction.
        await _make_schema(other)
        _make_tables(library_dsn(dsn, pgbouncer=pgbouncer))
        found = await (await other.execute(sql.load("has_tables"))).fetchone()
        if found is None or not found["found"]:
            raise DatabaseError("the library made its tables elsewhere: does the search path lead to one schema?")


async def _make_schema(connection: psycopg.AsyncConnection[dict[str, Any]]) -> None:
    """Make the first schema of the search path, unless the path already leads somewhere."""
    row = await (await connection.execute(sql.load("search_path"))).fetchone()
    if row is None or row["current_schema"] is not None:
        return
    names = [name.strip().strip('"') for name in row["search_path"].split(",")]
    schema = composing.Identifier(next(name for name in names if name and name != "$user"))
    await connection.execute(composing.SQL(sql.load("create_schema")).format(schema=schema))
    await connection.execute(composing.SQL(sql.load("close_schema")).format(schema=schema))


def _make_tables(url: str) -> None:
    # The library's listing of devices opens the store and brings its tables up to date; its result is of no use.
    from neonize._binder import func_callback_bytes2, gocode  # noqa: PLC0415 - only this process may load the library

    callback = func_callback_bytes2(lambda _text, _size: None)
    gocode.GetAllDevices.restype = ctypes.c_char_p
    answer: bytes = gocode.GetAllDevices(url.encode(), callback) or b""
    if answer.startswith(b"error"):
        raise DatabaseError(answer.decode(errors="replace").removeprefix("error: "))


def main() -> int:
    """Prepare the store that the environment names; prints one line of JSON when it cannot."""
    try:
        asyncio.run(_prepare(os.environ[DSN_VARIABLE], pgbouncer=bool(os.environ.get(PGBOUNCER_VARIABLE))))
    except (DatabaseError, psycopg.Error) as error:
        print(json.dumps({"error": " ".join(str(error).split())}), flush=True)  # noqa: T201 - its answer
        return 69
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)  # threads of the library never end
