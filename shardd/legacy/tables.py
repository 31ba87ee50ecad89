"""The tables of the old system that are read, and their columns.

Installations differ: a column that only some have may be missing, one without which a row means nothing may not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from shardd.errors import SourceError

Row = dict[str, str | None]
"""A row as text: what the old database would print in ISO style, None for NULL, hexadecimal digits for bytes that are no text."""


@dataclass(frozen=True, slots=True)
class Table:
    """One of the old system's tables. `required`: whether a system without it is none."""

    name: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    required: bool = True

    def choose(self, there: Collection[str], where: str) -> tuple[str, ...]:
        """The columns to read of those that are there. Raises SourceError that names what `where` lacks."""
        if missing := [column for column in self.needed if column not in there]:
            raise SourceError(
                f"{where}: table {self.name} has no column {', '.join(missing)}; it has {', '.join(there) or 'none'}. "
                "Rename the columns in the old database, or give it a view of that name"
            )
        return tuple(column for column in (*self.needed, *self.optional) if column in there)


USER_DEVICES: Final = Table(
    "user_devices",
    needed=("id",),
    optional=("device_name", "phone", "jid", "min_delay_seconds", "max_delay_seconds", "platform"),
)
MESSAGES: Final = Table(
    "broadcast_messages",
    needed=("id", "device_id", "recipient_phone", "content", "status"),
    optional=(
        "user_id",
        "campaign_id",
        "sequence_id",
        "sequence_stepid",
        "recipient_name",
        "message_type",
        "media_url",
        "scheduled_at",
        "sent_at",
        "created_at",
        "group_id",
        "group_order",
    ),
)
SESSIONS: Final = Table("whatsmeow_device", needed=("jid",), optional=(), required=False)
TABLES: Final = (USER_DEVICES, MESSAGES, SESSIONS)


class Source(Protocol):
    """The old system's tables, wherever they are. Everything raises SourceError or DatabaseError, never with a password."""

    name: str
    """What it is called in reports; no password in it."""

    def scan(self, *tables: Table) -> Iterator[tuple[Table, Row]]:
        """The rows of these tables in any order, one at a time: no table is held in memory."""

    def columns(self, table: Table) -> tuple[str, ...] | None:
        """The columns that a finished scan read of a table; None: there is no such table."""

    def close(self) -> None:
        """Let go of files and connections."""


def check_required(source: Source, *tables: Table) -> None:
    """Raise SourceError when a scan found no table that there must be."""
    for table in tables:
        if table.required and source.columns(table) is None:
            raise SourceError(
                f"{source.name} has no table {table.name}: is it the old system's? Of a schema that is not searched, "
                "name it in the DSN: ?options=-csearch_path%3DNAME; a dump needs the table's data"
            )
