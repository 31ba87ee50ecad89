"""`shardd db psql`: PostgreSQL's own client, on the database that every other command uses.

Whatever the environment of the caller names, it reaches the server of the config. No password is on a command line, where every
account of the host could read it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from psycopg import pq

from shardd.embedded.binaries import find_psql, is_of_wheel
from shardd.errors import DatabaseError
from shardd.postgres.dsn import complete_dsn, parse_dsn

HOW_TO_GET: Final = "install it (Debian, Ubuntu: apt install postgresql-client; Fedora: dnf install postgresql)"
_NAMES_A_SERVER: Final = frozenset({"host", "hostaddr", "service"})
_WHERE: Final = frozenset(
    {
        *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGOPTIONS"),
        *("PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGREQUIREPEER"),
    }
)
"""Variables that would lead to another server, database or role than the DSN."""
KILLED: Final = 128
"""Added to the number of the signal that ended psql, as a shell does."""
_NEEDS_TLS: Final = frozenset({"require", "verify-ca", "verify-full"})


async def run_psql(dsn: str, arguments: Sequence[str]) -> int:
    """Run psql on this terminal until it ends; its exit code. Raises DatabaseError when there is no psql that can connect."""
    program = choose_psql(dsn)
    options, environ = psql_surroundings(dsn, os.environ)
    process = await asyncio.create_subprocess_exec(str(program), *options, *arguments, env=environ)
    loop = asyncio.get_running_loop()
    # On a terminal psql gets ^C, too, and ends a statement or itself: this process waits for its end.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, process.terminate)
    code = await process.wait()
    return code if code >= 0 else KILLED - code


def choose_psql(dsn: str) -> Path:
    """The psql for a server. Raises DatabaseError with the package to install."""
    program = find_psql()
    if program is None:
        raise DatabaseError(f"there is no psql on this machine: {HOW_TO_GET}")
    check_tls(program, dsn)
    return program


def check_tls(program: Path, dsn: str) -> None:
    """Raises DatabaseError for a program that cannot connect as the DSN says."""
    if is_of_wheel(program) and (mode := parse_dsn(dsn).get("sslmode")) in _NEEDS_TLS:
        raise DatabaseError(
            f"the only {program.name} on this machine, {program}, has no TLS, which the DSN requires (sslmode={mode}): "
            f"{HOW_TO_GET}"
        )


def psql_surroundings(dsn: str, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Options and environment with which psql connects as the DSN says. Raises DatabaseError.

    What the DSN leaves out is taken from the environment only if it names no server at all, as for all other commands.
    """
    parts = parse_dsn(dsn)
    if not parts.keys() & _NAMES_A_SERVER:
        parts = parse_dsn(complete_dsn(dsn))
    known = {option.keyword.decode(): option for option in pq.Conninfo.get_defaults()}
    variables = {name: option.envvar.decode() for name, option in known.items() if option.envvar}
    rest = {name: str(value) for name, value in parts.items() if name not in variables}
    if secret := next((name for name in rest if known[name].dispchar == b"*"), None):
        raise DatabaseError(
            f"PostgreSQL's clients take {secret} only on their command line, where everybody could read it: use another program"
        )
    kept = {name: value for name, value in environ.items() if name not in _WHERE}
    named = {variables[name]: str(value) for name, value in parts.items() if name in variables}
    options = [f"--dbname={' '.join(f'{name}={_quoted(value)}' for name, value in rest.items())}"] if rest else []
    return options, kept | named


def _quoted(value: str) -> str:
    """A value of a libpq connection string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
