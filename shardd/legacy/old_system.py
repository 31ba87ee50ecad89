"""Reads a whole old system: its devices and sessions into memory, its messages to disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from shardd.legacy.devices import OldDevice, read_device
from shardd.legacy.messages import MessageReader
from shardd.legacy.report import Report
from shardd.legacy.spool import Spool
from shardd.legacy.tables import MESSAGES, SESSIONS, USER_DEVICES, Source, check_required


@dataclass(frozen=True, slots=True)
class OldSystem:
    """The content of an old system."""

    devices: list[OldDevice]
    sessions: list[str]
    """Addresses of the sessions in the old database itself."""
    has_store: bool
    """Whether it has a table of sessions."""
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
        yield OldSystem(devices, sessions, source.columns(SESSIONS) is not None, spool)
