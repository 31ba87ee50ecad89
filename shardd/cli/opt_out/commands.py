"""The commands but `forget`; none takes an opt-out back, which only the person can do."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from shardd.cli.acts import acting, acts, record, under_way
from shardd.cli.completion import complete_devices
from shardd.cli.database import reach_database, with_database
from shardd.cli.help import examples
from shardd.cli.listing import WIDE, Column, Listing, table_of
from shardd.cli.names import Refusals, login_name, read_names
from shardd.cli.opt_out.forget import CONTINUE, forget
from shardd.cli.opt_out.recipients import Row, make_row, read_file, spelling_of
from shardd.cli.options import (
    OneOf,
    ReadBy,
    config_option,
    database_config_option,
    json_list_option,
    json_option,
    limit_option,
    load_other_config,
    other_region_option,
    run_async,
)
from shardd.cli.output import Facts, make_console, make_facts, print_exactly, print_json, say
from shardd.cli.regions import names_of
from shardd.config import Config
from shardd.config.values import Seconds
from shardd.errors import BlockedError, UsageError
from shardd.queue.database import Database
from shardd.queue.forgetting import Forgetting, ForgottenSince
from shardd.queue.moving import copy_opt_outs
from shardd.queue.opt_outs import CHUNK, LoggedOptOut, NewOptOut, OptOut, OptOutAdmin, StoppedJob
from shardd.words import ago, count, moment_text

SOURCES: Final = ("producer", "message", "operator", "import", "forgotten")
MOST_NAMED: Final = 20
"""Numbers that `import` names of those who took their opt-out back."""
MOST_STOPPED: Final = 20
"""Stopped jobs that `show` lists."""
_ROW_END: Final = "\r\n"
"""With it `csv` quotes a field that contains either character; printed lines end as every line."""

OPT_OUTS: Final = Listing[OptOut](
    one="opt-out",
    none="no opt-outs",
    columns=[
        Column("address", lambda one: one.address),
        Column("source", lambda one: one.source),
        Column("by", lambda one: one.device_id or one.created_by),
        Column("since", lambda one: moment_text(one.created_at), whole=True, at_least=WIDE),
        Column("since", lambda one: ago(one.created_at), whole=True, below=WIDE),
        Column("words or note", lambda one: one.words or one.note or ""),
    ],
)
_SAID: Final = {"opted_out": "opted out", "repeated": "said again", "taken_back": "taken back"}
_STOPPED: Final[list[Column[StoppedJob]]] = [
    Column("job", lambda job: str(job.id), right=True),
    Column("device", lambda job: job.device_id or ""),
    Column("campaign", lambda job: job.campaign or ""),
    Column("class", lambda job: job.job_class),
    Column("reference", lambda job: job.reference or ""),
    Column("stopped", lambda job: moment_text(job.settled_at), whole=True, at_least=WIDE),
    Column("stopped", lambda job: ago(job.settled_at), whole=True, below=WIDE),
]


@click.group("opt-out", epilog=examples("shardd opt-out show +4915112345678"))
def opt_out_group() -> None:
    """Add, import, list, export and forget opt-outs.

    Only the person can take an opt-out back, with a word of opt_outs.take_back_words: no command does, and the database refuses
    to delete or change one. A wrong deletion could not be told from a right one later, and whoever asked to be left alone must
    be able to rely on it.
    """


@opt_out_group.command("add", epilog=examples("shardd opt-out add +4915112345678 --note='by phone'"))
@click.argument("recipients", nargs=-1, required=True, metavar="NUMBER...")
@click.option("--note", help="The reason or origin; shown with the opt-out.")
@config_option
@acts("opt out")
def add(recipients: tuple[str, ...], note: str | None, config: Config) -> None:
    """Add opt-outs.

    NUMBER is a phone number, or an address that ends with @lid or @g.us; - stands for numbers on stdin, one per line.
    """
    rows = [(name, make_row(name, note)) for name in read_names(recipients)]
    if not rows:
        raise UsageError(
            "no recipient is named: write a phone number, several, or - for numbers on stdin, one per line"
        )
    _add(config, rows, source="operator", one="number", dry_run=False)


opt_out_group.add_command(forget)


@opt_out_group.command("import", epilog=examples("shardd opt-out import unsubscribed.csv --dry-run"))
@click.argument("file", metavar="FILE", type=click.File(encoding="utf-8-sig"))
@click.option("--note", help="The origin of the list; for each opt-out without a note of its own.")
@click.option("--dry-run", is_flag=True, help="Check the file; add nothing.")
@config_option
@acts("opt out")
def import_(*, file: Any, note: str | None, dry_run: bool, config: Config) -> None:
    """Add all opt-outs of a file.

    FILE, or - for stdin, has one number per line, or is CSV with the columns recipient, note, said_at. Only the first is
    required (also as number, phone or address); said_at is a time in ISO 8601. Existing opt-outs stay unchanged, so a file may
    be imported again.
    """
    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    _add(config, read_file(file.name, text, note), source="import", one="line", dry_run=dry_run)


@opt_out_group.command("list", epilog=examples("shardd opt-out list --device=berlin-1"))
@click.option("--source", type=OneOf(SOURCES), help="Only opt-outs of this source.")
@click.option(
    "--device",
    "device_id",
    metavar="ID",
    shell_complete=complete_devices,
    help="Only opt-outs received by this device.",
)
@limit_option
@json_list_option
@config_option
def list_(*, source: str | None, device_id: str | None, limit: int, as_json: bool, config: Config) -> None:
    """List opt-outs, newest first."""

    async def find(database: Database) -> list[OptOut]:
        return await OptOutAdmin(database).newest(limit, source=source, device_id=device_id)

    more = "there may be more: --limit, or shardd opt-out export"
    OPT_OUTS.show(with_database(config, find), as_json=as_json, limit=limit, more=more)


@opt_out_group.command("show", epilog=examples("shardd opt-out show +4915112345678"))
@click.argument("recipient", metavar="NUMBER")
@json_option()
@config_option
def show(recipient: str, as_json: bool, config: Config) -> None:
    """Show a recipient's opt-out, if there is one.

    With the newest jobs that it stopped.
    """
    address = spelling_of(config).address(recipient)

    async def find(
        database: Database,
    ) -> tuple[OptOut | None, list[LoggedOptOut], list[StoppedJob], ForgottenSince | None]:
        admin = OptOutAdmin(database)
        stopped = await admin.stopped(address, MOST_STOPPED)
        since = await Forgetting(database).since(address)
        return await admin.show(address), await admin.trail(address), stopped, since

    found, heard, stopped, forgotten = with_database(config, find)
    if as_json:
        known = {"address": address} if found is None else asdict(found)
        opted_out = found is not None or forgotten is not None
        print_json({**known, "opted_out": opted_out, "forgotten": forgotten, "heard": heard, "jobs_stopped": stopped})
        return
    console = make_console()
    if forgotten is not None:
        when = moment_text(forgotten.created_at)
        kept = "nothing else is kept" if forgotten.erased else f"not all is erased yet: {CONTINUE}"
        console.print(f"{address}: opted out, and forgotten ({when}, by {forgotten.created_by}): {kept}")
        return
    if found is None:
        console.print(f"{address}: has not opted out")
        if heard:
            console.print(make_facts([(_SAID[one.kind], _said(one)) for one in heard]))
        return
    console.print(f"{address}: opted out")
    console.print(make_facts(_facts(found, heard)))
    if stopped:
        console.print()
        console.print(f"newest jobs that this stopped ({len(stopped)})")
        console.print(table_of(_STOPPED, stopped, console.width))


def _said(one: LoggedOptOut) -> str:
    when = moment_text(one.said_at or one.created_at)
    return f"{when}: {one.words}" if one.words else when


def _facts(found: OptOut, heard: list[LoggedOptOut]) -> Facts:
    return [
        ("recipient", found.recipient),
        ("source", found.source),
        ("device", found.device_id),
        ("words", found.words),
        ("note", found.note),
        ("said", moment_text(found.said_at)),
        ("on the list", moment_text(found.created_at)),
        ("by", found.created_by),
        *((_SAID[one.kind], _said(one)) for one in heard[1:]),
    ]


@opt_out_group.command("export", epilog=examples("shardd opt-out export > opt-outs.csv"))
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header, which is the default.")
@json_option("Print an object per line.")
@config_option
@run_async
async def export(*, as_csv: bool, as_json: bool, config: Config) -> None:
    """Print all opt-outs, sorted by address.

    Times are in ISO 8601.
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other: choose one")
    write = partial(print_json, compact=True) if as_json else _csv_writer()
    async with reach_database(config) as database:
        async for chunk in OptOutAdmin(database).everybody():
            for one in chunk:
                write(one)


@opt_out_group.command("copy", epilog=examples("shardd opt-out copy --to=asia.yaml --since=1h"))
@other_region_option
@click.option(
    "--since",
    type=ReadBy(Seconds("1s", "365d")),
    metavar="DURATION",
    help="Only those that were added within this time, which must be longer than any transaction is open; default: all.",
)
@database_config_option
@acts("opt out")
@run_async
async def copy(target: Path, since: float | None, config: Config) -> None:
    """Add all opt-outs to another region.

    To another database, which a second config names. What a person took back there since then stays taken back. Repeat it by a
    timer, in both directions.
    """
    other = load_other_config(target)
    async with reach_database(config) as here, reach_database(other) as there:
        new = await copy_opt_outs(here, there, since=since)
        if new:  # a timer repeats this every minute
            await record(there, other, count(new, "person", "people"), f"of {names_of([config, other])[0]}")
    say(f"added {count(new, 'opt-out')} to {names_of([config, other])[1]}")


def _add(config: Config, rows: Sequence[tuple[str, Row]], *, source: str, one: str, dry_run: bool) -> None:
    """Add the readable rows; the others are refused under their names, which come first in `rows`."""
    spelling, good, refusals = spelling_of(config), [], Refusals()
    for name, row in rows:
        if isinstance(row, UsageError):
            refusals.add([name], one, str(row))
            continue
        try:
            good.append(NewOptOut(spelling.read(row.recipient), row.note, row.said_at))
        except UsageError as error:
            refusals.add([name], one, str(error))
    if dry_run:
        say(f"would add {count(len(good), 'recipient')}, including those that are already listed")
    elif good:
        said_for = {spelling.address(row.recipient): row.recipient for row in good}

        async def add(database: Database) -> tuple[set[str], set[str]]:
            new = await _add_recorded(database, config, good, source)
            return new, await OptOutAdmin(database).listed(sorted(said_for.keys() - new))

        new, listed = with_database(config, add)
        known = f"; {len(listed):,} already listed" if listed else ""
        say(f"added {count(len(new), 'opt-out')}{known}")
        if back := sorted(said_for.keys() - new - listed):
            shown = ", ".join(said_for[address] for address in back[:MOST_NAMED])
            more = f" and {len(back) - MOST_NAMED:,} more" if len(back) > MOST_NAMED else ""
            say(
                f"not added, because they took their opt-out back after said_at: {shown}{more}; see shardd opt-out show NUMBER"
            )
    refusals.finish()


async def _add_recorded(database: Database, config: Config, good: Sequence[NewOptOut], source: str) -> set[str]:
    """Add them, and write to the audit log how many were new."""
    target = "a person" if len(good) == 1 else count(len(good), "person", "people")
    if len(good) <= CHUNK:
        try:
            async with acting(database, config, target) as act:
                new = await OptOutAdmin(act.database).add(good, source=source, created_by=login_name())
                act.happened = bool(new)
                act.detail = _outcome(new)
        except BlockedError as error:
            raise BlockedError(f"nothing was changed: {error}") from error
        return new
    async with under_way(database, config, target) as here:
        new = await OptOutAdmin(database).add(good, source=source, created_by=login_name())
        if new:
            here.detail = _outcome(new)
        else:
            here.result = "already listed"
    return new


def _outcome(new: set[str]) -> str:
    return f"added {count(len(new), 'opt-out')}"


class _Lines:
    """A file for `csv`, which writes one row at a time."""

    def write(self, row: str) -> None:
        print_exactly(row.removesuffix(_ROW_END))


def _csv_writer() -> Callable[[OptOut], None]:
    writer = csv.writer(_Lines(), lineterminator=_ROW_END)
    names = [field.name for field in fields(OptOut)]
    writer.writerow(names)
    return lambda one: writer.writerow([_cell(getattr(one, name)) for name in names])


def _cell(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
