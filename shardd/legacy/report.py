"""What an import found and did: the same whether it was done or only rehearsed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 20
"""Rows that are listed for a reason before they are only counted."""


@dataclass(slots=True)
class Rows:
    """Rows of the old system with something in common: how many, and which, each with what else there is to say."""

    count: int = 0
    listed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Counts, and the rows that a person has to look at."""

    source: str
    rehearsed: bool
    keep_all: bool
    """Whether every such row is kept, or the first `SHOWN` of a reason."""

    devices: Counter[str] = field(default_factory=Counter)
    """new, here, and of both together with_session and unpaired."""
    sessions: Counter[str] = field(default_factory=Counter)
    """new, here."""
    campaigns: Counter[str] = field(default_factory=Counter)
    """new, here."""
    messages: Counter[str] = field(default_factory=Counter)
    """new, here, and of the new ones overdue and opted_out."""
    finished: Counter[str] = field(default_factory=Counter)
    """Messages that were not waiting any more, by their status."""
    in_doubt: Rows = field(default_factory=Rows)
    """Messages of which the old system cannot say whether they went."""
    refused: dict[tuple[str, str], Rows] = field(default_factory=dict)
    """What was not taken over, by table and reason."""
    noted: dict[tuple[str, str], Rows] = field(default_factory=dict)
    """What was taken over otherwise than it stood there, by table and remark."""
    remarks: list[str] = field(default_factory=list)
    """What was assumed, and what is left to do."""

    def refuse(self, table: str, row: str, reason: str, detail: str = "") -> None:
        """A row stays behind; `reason` is the same for all rows of its kind, `detail` is about this one."""
        self._add(self.refused.setdefault((table, reason), Rows()), row, detail)

    def note(self, table: str, row: str, remark: str, detail: str = "") -> None:
        """A row comes over with a change."""
        self._add(self.noted.setdefault((table, remark), Rows()), row, detail)

    def doubt(self, row: str, detail: str) -> None:
        """A message may have been sent."""
        self._add(self.in_doubt, row, detail)

    @property
    def refusals(self) -> int:
        """Rows that stay behind though they should not."""
        return sum(rows.count for rows in self.refused.values())

    def as_json(self) -> dict[str, object]:
        """For programs: fields may be added, none is renamed."""
        return {
            "source": self.source,
            "dry_run": self.rehearsed,
            "devices": _counts(self.devices, "new", "here", "with_session", "unpaired"),
            "sessions": _counts(self.sessions, "new", "here"),
            "campaigns": _counts(self.campaigns, "new", "here"),
            "messages": {
                **_counts(self.messages, "new", "here", "overdue", "opted_out"),
                "in_doubt": self.in_doubt.count,
                "refused": sum(
                    rows.count for (table, _), rows in self.refused.items() if table == "broadcast_messages"
                ),
                "finished": dict(sorted(self.finished.items())),
            },
            "remarks": self.remarks,
            "in_doubt": [{"id": row, "detail": detail} for row, detail in self.in_doubt.listed],
            "refused": list(_flat(self.refused, "reason")),
            "noted": list(_flat(self.noted, "remark")),
        }

    def _add(self, rows: Rows, row: str, detail: str) -> None:
        rows.count += 1
        if self.keep_all or len(rows.listed) < SHOWN:
            rows.listed.append((row, detail))


def _counts(counter: Counter[str], *names: str) -> dict[str, int]:
    return {name: counter[name] for name in names}


def _flat(groups: dict[tuple[str, str], Rows], word: str) -> Iterator[dict[str, str]]:
    for (table, reason), rows in groups.items():
        for row, detail in rows.listed:
            yield {"table": table, "id": row, word: reason, "detail": detail}
