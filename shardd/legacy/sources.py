"""Opens the source that `--from` names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from shardd.errors import UsageError
from shardd.legacy.dump import Dump
from shardd.legacy.mysql import SCHEMES, MysqlSource
from shardd.legacy.postgresql import PostgresqlSource
from shardd.legacy.tables import Source

KINDS: Final = (
    "write postgresql://user:password@host/database, mysql://user:password@host/database, or the path of a file "
    "of pg_dump or mysqldump"
)


def open_source(source: str) -> Source:
    """The old system at a DSN or in a dump file. Raises UsageError, SourceError, DatabaseError, without a password."""
    scheme, colon, _ = source.partition("://")
    if colon and scheme.lower() in SCHEMES:
        return MysqlSource(source)
    # A DSN of key=value pairs may look like a path: an existing file takes precedence.
    if not colon and ((there := _file_at(source)) or "=" not in source):
        if there is None or not there.is_file():
            raise UsageError(f"--from: {source} {'does not exist' if there is None else 'is not a file'}; {KINDS}")
        return Dump(there)
    try:
        conninfo_to_dict(source)
    except ProgrammingError:
        raise UsageError(f"--from: the value (not shown) is not the address of a database; {KINDS}") from None
    return PostgresqlSource(source)


def _file_at(source: str) -> Path | None:
    try:
        file = Path(source).expanduser()
        return file if file.exists() else None
    except (OSError, RuntimeError):  # too long for a path, or an unknown home
        return None
