"""`shardd import legacy`: the devices, sessions and waiting messages of the system that shardd replaces.

Devices come first, then their sessions, then the messages, each of which may be done again: what is there already stays as it is,
so an import that was broken off is simply repeated.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import click
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from shardd.cli.legacy.run import take_over
from shardd.cli.legacy.view import show_report
from shardd.cli.names import confirm
from shardd.cli.options import config_option
from shardd.cli.output import print_json, say
from shardd.config import Config
from shardd.config.values import RefusedError, parse_duration
from shardd.errors import SourceError, UsageError
from shardd.legacy.old_system import read_old_system
from shardd.legacy.postgresql import PostgresqlSource
from shardd.legacy.report import Report
from shardd.legacy.sources import open_source

SOURCE_VARIABLE: Final = "SHARDD_IMPORT_FROM"
SESSIONS_VARIABLE: Final = "SHARDD_IMPORT_SESSIONS"
WARNING: Final = (
    "Stop the old system before, and for good: it would send the waiting messages too, and two programs on one WhatsApp "
    "session replace each other for ever."
)


@click.group("import")
def import_group() -> None:
    """Take over what another system left."""


@import_group.command("legacy")
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
    envvar=SESSIONS_VARIABLE,
    metavar="DSN",
    help="The PostgreSQL database with the old whatsmeow_* tables, unless it is the one of --from.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; print the report of what would be done.")
@click.option(
    "--timezone",
    "zone_name",
    default="UTC",
    show_default=True,
    help="Of the old system's times that name none, such as Asia/Jakarta.",
)
@click.option(
    "--expire-after", metavar="DURATION", help="Never send a message later than this after its time, such as 1d."
)
@click.option("--yes", is_flag=True, help="Do not ask whether the old system is stopped.")
@click.option("--json", "as_json", is_flag=True, help="The report for programs, with every row that stays behind.")
@config_option
def legacy(
    *,
    source: str,
    sessions: str | None,
    dry_run: bool,
    zone_name: str,
    expire_after: str | None,
    yes: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Take over devices, WhatsApp sessions and waiting messages from the tables user_devices, broadcast_messages and whatsmeow_*.

    It may be repeated: what was taken over stays as it is. Messages that may have been sent already stay behind, and the report
    names them. Exits with 65 when rows stay behind that should not.
    """
    zone, lifetime = _read_zone(zone_name), _read_duration(expire_after)
    _check_sessions(sessions)
    with closing(open_source(source)) as old:
        if not dry_run:
            say(WARNING, err=True)
            confirm(f"Is it stopped? Import from {old.name}?", yes=yes)
        report = Report(old.name, dry_run=dry_run, keep_all=as_json)
        report.remarks.append(f"times that name no time zone are read as {zone_name} (--timezone)")
        now = datetime.now(UTC)
        with read_old_system(old, report, zone=zone, expire_after=lifetime, now=now) as system:
            if sessions is None and isinstance(old, PostgresqlSource) and system.has_store:
                sessions = old.dsn
            asyncio.run(take_over(config, system, sessions, report, now))
    if as_json:
        print_json(report.as_json())
    else:
        show_report(report)
    if report.refusals:
        raise click.exceptions.Exit(SourceError.exit_code)


def _read_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UsageError(
            f"--timezone: {name} is unknown; write a name of the tz database, such as Asia/Jakarta"
        ) from None


def _read_duration(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except RefusedError as error:
        raise UsageError(f"--expire-after: {text} {error}") from None
    if seconds <= 0:
        raise UsageError(f"--expire-after: {text} is no time at all; write a duration such as 1d")
    return seconds


def _check_sessions(dsn: str | None) -> None:
    try:
        conninfo_to_dict(dsn or "")
    except ProgrammingError:
        raise UsageError(
            "--sessions: the value (not shown) is not the address of a PostgreSQL database; write "
            "postgresql://user:password@host/database"
        ) from None
