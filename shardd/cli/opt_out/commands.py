"""`shardd opt-out`: who wants no more messages.

The commands talk to the database, so they work whether shardd runs or not. There is none to take an opt-out back.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final

import click

from shardd.cli.database import reach_database, with_database
from shardd.cli.names import Refusals, read_names
from shardd.cli.opt_out.file import read_lines, read_table
from shardd.cli.opt_out.view import show_opt_out, show_opt_outs
from shardd.cli.options import WholeNumber, config_option
from shardd.cli.output import count, print_exactly, print_json, say
from shardd.cli.recipients import Spelling, login_name
from shardd.config import Config
from shardd.errors import UsageError
from shardd.phone_numbers import other_spellings
from shardd.queue.database import Database
from shardd.queue.opt_outs import NewOptOut, OptOut, OptOutAdmin, Saying, StoppedJob

SOURCES: Final = ("producer", "message", "operator", "import")
_ROW_END: Final = "\r\n"
"""With it `csv` quotes a field that has either sign; what is printed ends like every line."""
MOST_STOPPED: Final = 20
"""Stopped jobs that are shown."""


@click.group("opt-out")
def opt_out_group() -> None:
    """See and extend the list of those who want no more messages.

    An opt-out is final: there is no command to take one back, and the database refuses to delete or change one. Nobody could
    tell a wrong deletion from a right one afterwards, and whoever asked to be left alone must be able to rely on it. A person
    who wants messages again can be written to by hand, from the phone.
    """


@opt_out_group.command("add")
@click.argument("recipients", nargs=-1, required=True, metavar="NUMBER...")
@click.option("--note", help="Why, or on whose word; shown with the opt-out.")
@config_option
def add(recipients: tuple[str, ...], note: str | None, config: Config) -> None:
    """Add phone numbers, or addresses that end with @lid or @g.us. For - numbers are read from stdin, one per line."""
    rows = [(name, NewOptOut(name, note)) for name in read_names(recipients)]
    if not rows:
        raise UsageError("nobody is named: write a phone number, several, or - for numbers on stdin, one per line")
    _add(config, rows, source="operator", one="number", dry_run=False)


@opt_out_group.command("import")
@click.argument("file", metavar="FILE", type=click.File(encoding="utf-8-sig"))
@click.option("--note", help="Where the list is from; shown with each opt-out that has no note of its own.")
@click.option("--dry-run", is_flag=True, help="Read the file and tell what is wrong with it; add nobody.")
@config_option
def import_(*, file: Any, note: str | None, dry_run: bool, config: Config) -> None:
    """Add everybody in a file, or - for stdin: one number per line, or a CSV with the columns recipient, note, said_at.

    Of the columns only the first must be there (number, phone and address are names for it, too); said_at is a time in ISO
    8601. Whoever is on the list already stays there as before, so a file may be imported again.
    """
    try:
        text = file.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"{file.name}: line {line} has a NUL byte, which no text has; save it as UTF-8")
    read = read_table if "," in text.partition("\n")[0] or ";" in text.partition("\n")[0] else read_lines
    _add(config, read(text, note), source="import", one="line", dry_run=dry_run)


@opt_out_group.command("list")
@click.option("--source", type=click.Choice(SOURCES), help="Only what came this way.")
@click.option("--device", "device_id", metavar="ID", help="Only what this device heard.")
@click.option("--limit", type=WholeNumber(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@config_option
def list_(*, source: str | None, device_id: str | None, limit: int, as_json: bool, config: Config) -> None:
    """List opt-outs, newest first."""

    async def find(database: Database) -> list[OptOut]:
        return await OptOutAdmin(database).newest(limit, source=source, device_id=device_id)

    found = with_database(config, find)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        show_opt_outs(found, limit)


@opt_out_group.command("show")
@click.argument("recipient", metavar="NUMBER")
@click.option("--json", "as_json", is_flag=True, help="For programs; times in ISO 8601.")
@config_option
def show(recipient: str, as_json: bool, config: Config) -> None:
    """Tell whether somebody opted out, since when and by what, and the newest jobs that this stopped."""
    spelling = Spelling(config)
    address = spelling.address(recipient)

    async def find(database: Database) -> tuple[OptOut | None, list[Saying], list[StoppedJob]]:
        admin = OptOutAdmin(database)
        stopped = await admin.stopped([address, *other_spellings(address)], MOST_STOPPED)
        return await admin.show(address), await admin.trail(address), stopped

    found, heard, stopped = with_database(config, find)
    if as_json:
        print_json(
            {
                **({"address": address} if found is None else asdict(found)),
                "opted_out": found is not None,
                "heard": [asdict(saying) for saying in heard],
                "jobs_stopped": [_job_json(job) for job in stopped],
            }
        )
    else:
        show_opt_out(address, found, heard, stopped)


@opt_out_group.command("export")
@click.option("--csv", "as_csv", is_flag=True, help="A table with a header; so it is also without this.")
@click.option("--json", "as_json", is_flag=True, help="An object per line.")
@config_option
def export(*, as_csv: bool, as_json: bool, config: Config) -> None:
    """Print the whole list with all that is known, in the order of addresses; times in ISO 8601."""
    if as_csv and as_json:
        raise UsageError("--csv and --json are two forms of the same: choose one")
    write = _json_writer() if as_json else _csv_writer()

    async def run() -> None:
        async with reach_database(config) as database:
            async for chunk in OptOutAdmin(database).everybody():
                for one in chunk:
                    write(one)

    asyncio.run(run())


def _add(config: Config, rows: list[tuple[str, NewOptOut]], *, source: str, one: str, dry_run: bool) -> None:
    """Add what can be read; `rows` with their names, for what cannot."""
    spelling, good, refusals = Spelling(config), [], Refusals()
    for name, row in rows:
        try:
            good.append(NewOptOut(spelling.read(row.recipient), row.note, row.said_at))
        except UsageError as error:
            refusals.tell([name], one, str(error))

    async def work(database: Database) -> set[str]:
        return await OptOutAdmin(database).add(good, source=source, created_by=login_name())

    if dry_run:
        say(f"would add {count(len(good), 'recipient')}, those that are there already among them")
    elif good:
        new = len(with_database(config, work))
        addresses = len({row.recipient for row in good})
        known = f"; {addresses - new:,} there already" if addresses > new else ""
        say(f"added {count(new, 'opt-out')}{known}")
    refusals.finish()


def _job_json(job: StoppedJob) -> dict[str, Any]:
    return {"class" if name == "job_class" else name: value for name, value in asdict(job).items()}


class _Lines:
    """A file for `csv`, which writes one row at a time."""

    def write(self, row: str) -> None:
        print_exactly(row.removesuffix(_ROW_END))


def _csv_writer() -> Callable[[OptOut], None]:
    writer = csv.writer(_Lines(), lineterminator=_ROW_END)
    names = [field.name for field in fields(OptOut)]
    writer.writerow(names)
    return lambda one: writer.writerow([_plain(getattr(one, name)) for name in names])


def _json_writer() -> Callable[[OptOut], None]:
    return lambda one: print_json(asdict(one), compact=True)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
