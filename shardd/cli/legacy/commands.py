"""`shardd import legacy`: devices, sessions and waiting messages of the system that shardd replaces.

What was imported before is left as it is, so an interrupted import is simply repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import click

from shardd.cli.acts import acts
from shardd.cli.help import examples
from shardd.cli.legacy.run import take_over
from shardd.cli.names import confirm
from shardd.cli.options import ReadBy, config_option, json_option
from shardd.cli.output import Console, Text, make_console, print_json, say
from shardd.config import Config
from shardd.config.values import Seconds
from shardd.config.values.network import DSN
from shardd.config.values.places import TIME_ZONE
from shardd.errors import SourceError
from shardd.legacy.old_system import open_source, read_old_system
from shardd.legacy.postgresql import PostgresqlSource
from shardd.legacy.report import Report, Rows
from shardd.legacy.tables import SESSIONS
from shardd.words import count

SOURCE_VARIABLE: Final = "SHARDD_IMPORT_FROM"
SESSIONS_VARIABLE: Final = "SHARDD_IMPORT_SESSIONS"
WARNING: Final = (
    "First stop the old system, for good: it would send the waiting messages too, and two programs on one WhatsApp session "
    "replace each other forever."
)
_HEADING: Final = 10
"""Width of the report's first column."""


@click.group("import", epilog=examples("shardd import legacy --from=dump.sql --dry-run"))
def import_group() -> None:
    """Import from another system."""


@import_group.command(
    "legacy",
    epilog=examples("shardd import legacy --from=dump.sql --dry-run", "shardd import legacy --from=mysql://old/shop"),
)
@click.option(
    "--from",
    "source",
    required=True,
    envvar=SOURCE_VARIABLE,
    metavar="SOURCE",
    help="postgresql://…, mysql://…, or a file of pg_dump or mysqldump, also gzipped. "
    f"${SOURCE_VARIABLE} keeps a password out of the process list.",
)
@click.option(
    "--sessions",
    type=ReadBy(DSN),
    envvar=SESSIONS_VARIABLE,
    metavar="DSN",
    help="PostgreSQL database with the old whatsmeow_* tables, unless it is that of --from.",
)
@click.option("--dry-run", is_flag=True, help="Only report; change nothing.")
@click.option(
    "--timezone",
    "zone_name",
    type=ReadBy(TIME_ZONE),
    default="UTC",
    show_default=True,
    help="Time zone of the old system's times that name none, such as Asia/Jakarta.",
)
@click.option(
    "--expire-after",
    type=ReadBy(Seconds("1ms", "36500d")),
    metavar="DURATION",
    help="Expire messages that are later than this, such as 1d.",
)
@click.option("--yes", is_flag=True, help="Do not ask whether the old system has stopped.")
@json_option("Print the report with every row that is left out, for programs.")
@config_option
@acts("import")
def legacy(
    *,
    source: str,
    sessions: str | None,
    dry_run: bool,
    zone_name: str,
    expire_after: float | None,
    yes: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Import devices, sessions and waiting messages.

    They are in the tables user_devices, broadcast_messages and whatsmeow_*. The import may be repeated: what was imported is left
    as it is. Messages that may have been sent already are left out, and the report names them. Exit code 65: rows are left out
    because of errors.
    """
    with closing(open_source(source)) as old:
        if not dry_run:
            say(WARNING, err=True)
            confirm(f"Is it stopped? Import from {old.name}?", yes=yes)
        report = Report(old.name, dry_run=dry_run, keep_all=as_json)
        report.remarks.append(f"times that name no time zone are read as {zone_name} (--timezone)")
        now = datetime.now(UTC)
        with read_old_system(old, report, zone=ZoneInfo(zone_name), expire_after=expire_after, now=now) as system:
            if sessions is None and isinstance(old, PostgresqlSource) and SESSIONS.name in old.found:
                sessions = old.dsn
            asyncio.run(take_over(config, system, sessions, report, now))
    if as_json:
        print_json(report.as_json())
    else:
        show_report(report)
    if report.refusals:
        raise click.exceptions.Exit(SourceError.exit_code)


# ---- the report


def show_report(report: Report) -> None:
    """Print the report for people."""
    console = make_console()
    if report.dry_run:
        console.print(Text(f"{report.source}: nothing was changed; this would be done", "bold"))
    else:
        console.print(Text(f"{report.source}: imported", "bold"))
    devices, messages = report.devices, report.messages
    _line(console, "devices", _parts(devices, ("new", "new"), ("existing", "existing")))
    _line(
        console, "", _parts(devices, ("with_session", "with a session"), ("unpaired", "unpaired: shardd device pair"))
    )
    _line(console, "sessions", _parts(report.sessions, ("new", "new")))
    _line(console, "campaigns", _parts(report.campaigns, ("new", "new"), ("existing", "existing")))
    _line(console, "messages", _parts(messages, ("new", "new"), ("existing", "existing")) or ["none waits"])
    overdue = _parts(messages, ("overdue", "of the new ones overdue by more than a day (--expire-after)"))
    _line(console, "", overdue + _parts(messages, ("opted_out", "of them to recipients who opted out")))
    _line(console, "", [f"{number:,} {status}" for status, number in sorted(report.finished.items())], "left out: ")
    if report.in_doubt.count:
        _rows(
            console,
            f"in doubt, {count(report.in_doubt.count, 'message')}: may have been sent, decide yourself",
            report.in_doubt,
        )
    for (table, reason), rows in report.refused.items():
        _rows(console, f"left out, {count(rows.count, 'row')} of {table}: {reason}", rows)
    for (table, remark), rows in report.noted.items():
        _rows(console, f"changed, {count(rows.count, 'row')} of {table}: {remark}", rows)
    for remark in report.remarks:
        console.print(Text(f"note: {remark}", "dim"))


def _parts(counter: dict[str, int], *names: tuple[str, str]) -> list[str]:
    return [f"{counter[name]:,} {words}" for name, words in names if counter[name]]


def _line(console: Console, head: str, parts: Iterable[str], before: str = "") -> None:
    text = ", ".join(parts)
    if text:
        console.print(Text(f"{head:<{_HEADING}}{before}{text}"))


def _rows(console: Console, head: str, rows: Rows) -> None:
    console.print(Text(head, "yellow"))
    for row, detail in rows.listed:
        console.print(Text(f"  {row}{': ' if detail else ''}{detail}"), soft_wrap=True)
    if rows.count > len(rows.listed):
        console.print(Text(f"  and {rows.count - len(rows.listed):,} more (--json lists all)"))
