"""The tables of the old system and their columns, and what every source provides.

Installations differ, so most columns are optional; a row is useless without the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from shardd.errors import SourceError

Row = dict[str, str | None]
"""A row as text: dates in ISO style, None for NULL, hexadecimal digits for bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the old system. `required`: whether every old system has it."""

    name: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    required: bool = True

    def choose(self, there: Collection[str], where: str) -> tuple[str, ...]:
        """The columns to read, of those that exist. Raises SourceError for a missing one; `where` is the source's name."""
        if missing := [column for column in self.needed if column not in there]:
            raise SourceError(
                f"{where}: table {self.name} has no column {', '.join(missing)}; it has {', '.join(there) or 'none'}. "
                "Rename the columns in the old database, or create a view of that name"
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


class Source(ABC):
    """Access to the old system's tables. All methods raise SourceError or DatabaseError, without a password."""

    def __init__(self, name: str) -> None:
        """`name`: its name in reports, without a password."""
        self.name = name
        self.found: set[str] = set()
        """Names of the tables that finished scans read, also of empty ones."""

    @abstractmethod
    def scan(self, *tables: Table) -> Iterator[tuple[Table, Row]]:
        """The rows of these tables in any order, without holding a table in memory."""

    @abstractmethod
    def close(self) -> None:
        """Close files and connections."""


def check_required(source: Source, *tables: Table) -> None:
    """Raise SourceError if a scan did not find a required table."""
    for table in tables:
        if table.required and table.name not in source.found:
            raise SourceError(
                f"{source.name} has no table {table.name}: is it the old system's? If it is in another schema, name "
                "that in the DSN (?options=-csearch_path%3DNAME); a dump must contain the table's data"
            )
