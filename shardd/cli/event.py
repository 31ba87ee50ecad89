"""`shardd event`: what happened to jobs and devices, as programs read it in shardd.events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC
from typing import Any, Final

import click
import psycopg

from shardd.cli.database import with_database
from shardd.cli.options import WholeNumber, database_config_option
from shardd.cli.output import Text, count, make_console, make_table, print_json, say
from shardd.config import Config
from shardd.config.values import closest
from shardd.errors import DatabaseError, UsageError
from shardd.event_kinds import EventKind, names_a_kind
from shardd.queue.database import Database
from shardd.queue.events import EventRow, Events

WIDE: Final = 110
"""Columns from which on campaigns and the years are shown."""
FOLLOW_EVERY: Final = 0.5
"""Seconds between looks."""
FOLLOW_MOST: Final = 1000
"""Events of one look."""


@click.group("event")
def event_group() -> None:
    """See what happened, event by event."""


@event_group.command("list")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only these: job.sent, job.*, …; several times.")
@click.option("--after", metavar="POSITION", help="The next ones after this position, instead of the newest.")
@click.option("--limit", type=WholeNumber(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until ^C.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list; with --follow one object per line.")
@database_config_option
def list_(
    *, kinds: tuple[str, ...], after: str | None, limit: int, follow: bool, as_json: bool, config: Config
) -> None:
    """List events, oldest first.

    Each has a position: with --after it is where to go on. Programs do the same in SQL:
    SELECT * FROM shardd.read_events(position, 100).
    """
    _check_kinds(kinds)
    wanted = kinds or None

    async def find(database: Database) -> list[EventRow]:
        events = Events(database)
        return await (events.newest(limit, wanted) if after is None else events.read(after, limit, wanted))

    async def go_on(database: Database) -> None:
        events = Events(database)
        # The end first: what happens after it is seen by the first look.
        position = await events.end() if after is None else after
        if after is None:
            _print_lines(await events.newest(limit, wanted), as_json=as_json)
        while True:
            found = await events.read(position, FOLLOW_MOST, wanted)
            _print_lines(found, as_json=as_json)
            position = found[-1].position if found else position
            if len(found) < FOLLOW_MOST:
                await asyncio.sleep(FOLLOW_EVERY)

    try:
        if follow:
            with_database(config, go_on)
        else:
            _print_all(with_database(config, find), limit, as_json=as_json)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except DatabaseError as error:
        if isinstance(error.__cause__, psycopg.errors.InvalidParameterValue):
            raise UsageError(f"--after {after} is no position of this database: pass one that --json shows") from None
        raise


def event_json(event: EventRow) -> dict[str, Any]:
    """What `--json` prints of an event."""
    return {**asdict(event), "at": event.at.astimezone(UTC).isoformat()}


def _check_kinds(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if not names_a_kind(kind):
            near = closest(kind.lower(), list(EventKind))
            raise UsageError(f"--kind {kind}: there is no such event; {f'did you mean {near}?' if near else _known()}")


def _known() -> str:
    return f"known are {', '.join(EventKind)}"


def _print_all(events: list[EventRow], limit: int, *, as_json: bool) -> None:
    if as_json:
        print_json([event_json(event) for event in events])
        return
    console = make_console()
    if not events:
        console.print("no such events")
        return
    wide = console.width >= WIDE
    headers = ("id", "at", "kind", "job", "device", *(("campaign",) if wide else ()), "what")
    table = make_table(*headers, right=("id", "job"), whole=("at", "kind"))
    for event in events:
        number, at, kind, job, device, campaign, what = _cells(event)
        # Without the year: the events of one week are kept.
        table.add_row(
            *(Text(cell) for cell in (number, at if wide else at[5:], kind, job, device)),
            *([Text(campaign)] if wide else []),
            Text(what),
        )
    console.print(table)
    more = f"; go on with: --after {events[-1].position}" if len(events) == limit else ""
    console.print(Text(count(len(events), "event") + more, "dim"))


def _print_lines(events: list[EventRow], *, as_json: bool) -> None:
    for event in events:
        if as_json:
            print_json(event_json(event), compact=True)
        else:
            say("  ".join(filter(None, _cells(event))))


def _cells(event: EventRow) -> tuple[str, str, str, str, str, str, str]:
    job = "" if event.job_id is None else str(event.job_id)
    at = f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return (str(event.id), at, event.kind, job, event.device_id or "", event.campaign or "", _what(event))


def _what(event: EventRow) -> str:
    """The rest of an event in a few words."""
    data = event.data
    if event.kind == EventKind.DEVICE_STATE:
        reason = f" ({data['reason']})" if data.get("reason") else ""
        return f"{data.get('from') or 'new'} → {data.get('to')}{reason}"
    return str(data.get("error") or data.get("message_id") or data.get("reference") or "")
