"""How the report of an import looks to a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shardd.cli.output import Console, Text, count, make_console
from shardd.legacy.report import Report, Rows

_WIDTH: Final = 10


def show_report(report: Report) -> None:
    """Print it."""
    console = make_console()
    if report.dry_run:
        console.print(Text(f"{report.source}: nothing was changed; this would be done", "bold"))
    else:
        console.print(Text(f"{report.source}: taken over", "bold"))
    devices, messages = report.devices, report.messages
    _line(console, "devices", _parts(devices, ("new", "new"), ("existing", "existing")))
    _line(
        console, "", _parts(devices, ("with_session", "with a session"), ("unpaired", "unpaired: shardd device pair"))
    )
    _line(console, "sessions", _parts(report.sessions, ("new", "new")))
    _line(console, "campaigns", _parts(report.campaigns, ("new", "new"), ("existing", "existing")))
    _line(console, "messages", _parts(messages, ("new", "new"), ("existing", "existing")) or ["none is waiting"])
    overdue = _parts(messages, ("overdue", "of the new ones overdue by more than a day (--expire-after)"))
    _line(console, "", overdue + _parts(messages, ("opted_out", "of them to recipients who opted out")))
    _line(
        console, "", [f"{number:,} {status}" for status, number in sorted(report.finished.items())], "not taken over: "
    )
    if report.in_doubt.count:
        _rows(
            console,
            f"in doubt, {count(report.in_doubt.count, 'message')}: may have been sent, decide yourself",
            report.in_doubt,
        )
    for (table, reason), rows in report.refused.items():
        _rows(console, f"not taken over, {count(rows.count, 'row')} of {table}: {reason}", rows)
    for (table, remark), rows in report.noted.items():
        _rows(console, f"changed, {count(rows.count, 'row')} of {table}: {remark}", rows)
    for remark in report.remarks:
        console.print(Text(f"note: {remark}", "dim"))


def _parts(counter: dict[str, int], *names: tuple[str, str]) -> list[str]:
    return [f"{counter[name]:,} {words}" for name, words in names if counter[name]]


def _line(console: Console, head: str, parts: Iterable[str], before: str = "") -> None:
    text = ", ".join(parts)
    if text:
        console.print(Text(f"{head:<{_WIDTH}}{before}{text}"))


def _rows(console: Console, head: str, rows: Rows) -> None:
    console.print(Text(head, "yellow"))
    for row, detail in rows.listed:
        console.print(Text(f"  {row}{': ' if detail else ''}{detail}"), soft_wrap=True)
    if rows.count > len(rows.listed):
        console.print(Text(f"  and {rows.count - len(rows.listed):,} more (--json lists all)"))
