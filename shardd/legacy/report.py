"""The report of an import, which is the same for a dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 20
"""Rows listed per reason; further ones are only counted."""


@dataclass(slots=True)
class Rows:
    """Rows with the same reason: their count, and the id and detail of those that are listed."""

    count: int = 0
    listed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Counts, and the rows that a person has to look at."""

    source: str
    dry_run: bool
    keep_all: bool
    """Whether all such rows are listed, or only the first `SHOWN` per reason."""

    devices: Counter[str] = field(default_factory=Counter)
    """new, existing; with_session and unpaired count both."""
    sessions: Counter[str] = field(default_factory=Counter)
    """new, existing."""
    campaigns: Counter[str] = field(default_factory=Counter)
    """new, existing."""
    messages: Counter[str] = field(default_factory=Counter)
    """new, existing; overdue and opted_out are among the new ones."""
    finished: Counter[str] = field(default_factory=Counter)
    """Messages that were finished already, by status."""
    in_doubt: Rows = field(default_factory=Rows)
    """Messages that the old system may or may not have sent."""
    refused: dict[tuple[str, str], Rows] = field(default_factory=dict)
    """Rows that were not imported, by table and reason."""
    noted: dict[tuple[str, str], Rows] = field(default_factory=dict)
    """Rows that were imported with a change, by table and remark."""
    remarks: list[str] = field(default_factory=list)
    """Assumptions, and what is left to do."""

    def refuse(self, table: str, row: str, reason: str, detail: str = "") -> None:
        """A row is not imported; `reason` may be shared with other rows, `detail` is about this one."""
        self._add(self.refused.setdefault((table, reason), Rows()), row, detail)

    def note(self, table: str, row: str, remark: str, detail: str = "") -> None:
        """A row is imported with a change."""
        self._add(self.noted.setdefault((table, remark), Rows()), row, detail)

    def doubt(self, row: str, detail: str) -> None:
        """A message may have been sent."""
        self._add(self.in_doubt, row, detail)

    @property
    def refusals(self) -> int:
        """The number of rows that were not imported."""
        return sum(rows.count for rows in self.refused.values())

    def as_json(self) -> dict[str, object]:
        """The report for --json: fields may be added, but are not renamed."""
        return {
            "source": self.source,
            "dry_run": self.dry_run,
            "devices": _counts(self.devices, "new", "existing", "with_session", "unpaired"),
            "sessions": _counts(self.sessions, "new", "existing"),
            "campaigns": _counts(self.campaigns, "new", "existing"),
            "messages": {
                **_counts(self.messages, "new", "existing", "overdue", "opted_out"),
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
