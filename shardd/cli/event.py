"""`shardd event`: what happened to jobs and devices, as programs read it in shardd.events."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Final

import click
import psycopg

from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import WIDE, Column, Listing
from shardd.cli.options import ReadBy, database_config_option, json_option, limit_option
from shardd.cli.output import print_json, say
from shardd.config import Config
from shardd.config.values.words import EVENT_KIND
from shardd.errors import DatabaseError, UsageError
from shardd.queue.database import Database
from shardd.queue.events import EventRow, Events, words_of
from shardd.queue.sending import Sending

FOLLOW_EVERY: Final = 0.5
"""Seconds between two polls."""
FOLLOW_MOST: Final = 1000
"""Events of one poll."""


def _at(event: EventRow, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return format(event.at.astimezone(UTC), form)


EVENTS: Final = Listing[EventRow](
    one="event",
    none="no such events",
    columns=[
        Column("id", lambda event: str(event.id), right=True),
        Column("at", _at, whole=True, at_least=WIDE),
        # Without the year: events are kept for a week.
        Column("at", lambda event: _at(event, "%m-%d %H:%M:%S"), whole=True, below=WIDE),
        Column("kind", lambda event: event.kind, whole=True),
        Column("job", lambda event: "" if event.job_id is None else str(event.job_id), right=True),
        Column("device", lambda event: event.device_id or ""),
        Column("campaign", lambda event: event.campaign or "", at_least=WIDE),
        Column("what", words_of),
    ],
)


@click.group("event", epilog=examples("shardd event list --follow"))
def event_group() -> None:
    """List and follow events."""


@event_group.command(
    "list", epilog=examples("shardd event list --kind='job.*' --limit=10", "shardd event list --follow --json")
)
@click.option(
    "--kind",
    "kinds",
    type=ReadBy(EVENT_KIND),
    multiple=True,
    metavar="KIND",
    help="Only events of this kind: job.sent, job.*, …; repeatable.",
)
@click.option("--after", metavar="POSITION", help="The next events after this position, instead of the newest.")
@limit_option
@click.option("--follow", is_flag=True, help="Continue with new events, until ^C.")
@json_option("Print a list, or with --follow an object per line, for programs.")
@database_config_option
def list_(
    *, kinds: tuple[str, ...], after: str | None, limit: int, follow: bool, as_json: bool, config: Config
) -> None:
    """List events, oldest first.

    Each has a position, from which --after continues. Programs do the same in SQL:
    SELECT * FROM shardd.read_events(position, 100).
    """
    wanted = kinds or None

    async def find(database: Database) -> list[EventRow]:
        events = Events(database)
        return await (events.newest(limit, wanted) if after is None else events.read(after, limit, wanted))

    async def go_on(database: Database) -> None:
        events = Events(database)
        # The end first: the first poll sees what happens after it.
        position = await events.end() if after is None else after
        if after is None:
            _print_lines(await events.newest(limit, wanted), as_json=as_json)
        while True:
            page = await Sending(database, None).events(position, FOLLOW_MOST, wanted)
            _print_lines(page.events, as_json=as_json)
            position = page.position
            if not page.unfinished:
                await asyncio.sleep(FOLLOW_EVERY)

    try:
        if follow:
            with_database(config, go_on)
        else:
            found = with_database(config, find)
            more = f"go on with: --after {found[-1].position}" if found else ""
            EVENTS.show(found, as_json=as_json, limit=limit, more=more)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except DatabaseError as error:
        if isinstance(error.__cause__, psycopg.errors.InvalidParameterValue):
            raise UsageError(
                f"--after {after} is not a position of this database: pass one from the output of --json"
            ) from None
        raise


def _print_lines(events: list[EventRow], *, as_json: bool) -> None:
    for event in events:
        if as_json:
            print_json(event, compact=True)
        else:
            job = "" if event.job_id is None else str(event.job_id)
            parts = (str(event.id), _at(event), event.kind, job, event.device_id, event.campaign, words_of(event))
            say("  ".join(part for part in parts if part))
