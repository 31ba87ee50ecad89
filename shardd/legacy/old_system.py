"""Opens the old system that `--from` names and reads all of it: devices and sessions into memory, messages to disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from shardd.errors import UsageError
from shardd.legacy.devices import OldDevice, read_device
from shardd.legacy.dump import Dump
from shardd.legacy.messages import MessageReader
from shardd.legacy.mysql import SCHEMES, MysqlSource
from shardd.legacy.postgresql import PostgresqlSource
from shardd.legacy.report import Report
from shardd.legacy.spool import Spool
from shardd.legacy.tables import MESSAGES, SESSIONS, USER_DEVICES, Source, check_required

KINDS: Final = (
    "write postgresql://user:password@host/database, mysql://user:password@host/database, or the path of a file "
    "of pg_dump or mysqldump"
)


@dataclass(frozen=True, slots=True)
class OldSystem:
    """The content of an old system."""

    devices: list[OldDevice]
    sessions: list[str]
    """Addresses of the sessions in the old database itself."""
    spool: Spool


@contextmanager
def read_old_system(
    source: Source, report: Report, *, zone: ZoneInfo, expire_after: float | None, now: datetime
) -> Iterator[OldSystem]:
    """Read it; the spool is closed at the end of the block. Raises SharddError."""
    devices: list[OldDevice] = []
    sessions: list[str] = []
    for table, row in source.scan(USER_DEVICES, SESSIONS):
        if table is SESSIONS:
            sessions.append(row["jid"] or "")
        elif device := read_device(row, report):
            devices.append(device)
    check_required(source, USER_DEVICES, SESSIONS)
    with closing(Spool()) as spool:
        reader = MessageReader(
            {device.old_id for device in devices}, report, zone=zone, expire_after=expire_after, now=now
        )
        for _, row in source.scan(MESSAGES):
            if message := reader.read(row):
                spool.add(row, message)
        check_required(source, MESSAGES)
        yield OldSystem(devices, sessions, spool)


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
