"""`shardd device import`: the sessions of another whatsmeow program become devices, and no phone is paired again.

Nothing happens without --apply. Then the sessions are copied first and the devices made after them, so that an import that was
broken off is simply done again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import click
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from shardd.cli.device.settings import check_gaps, read_gaps, read_proxy
from shardd.cli.names import Refusals, confirm, device_ids
from shardd.cli.options import WholeNumber, config_option
from shardd.cli.output import Text, count, make_console, make_table, print_json, say
from shardd.cli.sessions import WHATSAPP, SessionContext, open_session_context
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.sessions import Adoption, number_of
from shardd.transports.whatsapp.sessions.importing import ImportPlan, import_sessions, plan_import
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import StoredSession

SOURCE_VARIABLE: Final = "SHARDD_IMPORT_FROM"
WARNING: Final = (
    "Stop the program that used these sessions before, and for good: WhatsApp keeps one connection per session, "
    "and two programs on one session replace each other for ever."
)
_STYLES: Final = {"import": "green", "here": "dim", "skip": "yellow", "conflict": "red"}


@dataclass(frozen=True, slots=True)
class Item:
    """A session of the other store, and what is to be done with it."""

    session: str
    number: str
    name: str
    device: str
    does: Literal["import", "here", "skip", "conflict"]
    why: str


@click.command("import")
@click.argument("numbers", nargs=-1, metavar="[NUMBER]...")
@click.option(
    "--from",
    "source",
    required=True,
    envvar=SOURCE_VARIABLE,
    metavar="DSN",
    help=f"The PostgreSQL database of the other program. ${SOURCE_VARIABLE} keeps its password out of the process list.",
)
@click.option("--apply/--dry-run", help="Do it, or only report what would be done, which is the default.")
@click.option("--prefix", default="", help="The id of a new device is its phone number after this.")
@click.option(
    "--gap", metavar="MIN..MAX", help="Random pause between two messages of a new device; else as configured."
)
@click.option("--daily-limit", type=WholeNumber(0, 1_000_000), help="Messages a day of a new device; 0: no limit.")
@click.option("--proxy", help="Proxy of new devices: http://user:password@host:port or socks5://…")
@click.option("--yes", is_flag=True, help="Do not ask whether the other program is stopped.")
@click.option("--json", "as_json", is_flag=True, help="The report for programs.")
@config_option
def import_(
    *,
    numbers: tuple[str, ...],
    source: str,
    apply: bool,
    prefix: str,
    gap: str | None,
    daily_limit: int | None,
    proxy: str | None,
    yes: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Adopt the sessions that a whatsmeow program keeps in PostgreSQL: all, or those of some NUMBERs.

    A whatsapp device that is there already under the id of a session, without a session of its own, gets that one.
    """
    _check_source(source)
    low, high = read_gaps(gap, None, None)
    check_gaps(config, low, high)
    usual = Adoption(
        ids=(), sessions=(), labels=(), proxy=read_proxy(proxy), gap_min=low, gap_max=high, daily_limit=daily_limit
    )
    wanted = {"".join(filter(str.isdigit, number)) for number in numbers}
    asyncio.run(_import(config, source, wanted, prefix, usual, apply=apply, yes=yes, as_json=as_json))


async def _import(
    config: Config,
    source: str,
    wanted: set[str],
    prefix: str,
    usual: Adoption,
    *,
    apply: bool,
    yes: bool,
    as_json: bool,
) -> None:
    async with open_session_context(config) as context:
        # Empty tables at most: without them there is nothing to compare with.
        await prepare_store(context.store, pgbouncer=context.pgbouncer)
        plan = await plan_import(source, context.store)
        items = weigh(plan, await DeviceAdmin(context.database).find(), prefix, wanted)
        todo = [item for item in items if item.does == "import"]
        _report(items, as_json=as_json)
        absent = wanted - {item.number for item in items}
        refusals = Refusals()
        refusals.tell(sorted(absent), "number", "no session of it is in the other store")
        if not apply:
            _tell(f"nothing was changed; {WARNING[0].lower()}{WARNING[1:]} Then do it with --apply." if todo else "")
        elif todo:
            say(WARNING, err=True)
            confirm(f"Is it stopped? Import {count(len(todo), 'session')}?", yes=yes)
            done = await _apply(context, source, plan, todo, usual)
            _tell(f"imported {count(len(done), 'device')}")
            left = [item.device for item in todo if item.device not in done]
            refusals.tell(
                left, "device", "not made: its id or its number was taken meanwhile; import again for a report"
            )
        refusals.finish()


def weigh(plan: ImportPlan, devices: Sequence[DeviceRow], prefix: str, wanted: set[str]) -> list[Item]:
    """What is to be done with each session of the other store, those of `wanted` numbers only unless that is empty."""
    by_id = {device.id: device for device in devices}
    by_session = {device.session: device.id for device in devices if device.session}
    by_number = {number_of(session): device_id for session, device_id in by_session.items()}
    items = []
    seen: set[str] = set()
    for session in _newest_first([*plan.new, *plan.present]):
        if wanted and session.number not in wanted:
            continue
        device_id = device_ids([prefix + session.number])[0]
        there = by_id.get(device_id)
        does: Literal["import", "here", "skip", "conflict"] = "import"
        why = "new device"
        if session.jid in by_session:
            does, device_id, why = "here", by_session[session.jid], "this device has it already"
        elif session.number in seen:
            does, why = "skip", "an older session of this number"
        elif session.number in by_number:
            does, why = "conflict", f"device {by_number[session.number]} has this number, with another session"
        elif there is not None and (there.transport != WHATSAPP or there.session is not None):
            does, why = "conflict", f"the id is taken by a device of {there.transport}; choose another with --prefix"
        elif there is not None:
            why = "the device is there and gets it"
        seen.add(session.number)
        name = session.push_name or session.business_name
        items.append(Item(session.jid, session.number, name, device_id, does, why))
    return items


async def _apply(
    context: SessionContext, source: str, plan: ImportPlan, todo: Sequence[Item], usual: Adoption
) -> set[str]:
    """The ids of the devices that got a session."""
    new = {session.jid for session in plan.new}
    await import_sessions(source, context.store, [item.session for item in todo if item.session in new])
    return await context.sessions.adopt(
        dataclasses.replace(
            usual,
            ids=[item.device for item in todo],
            sessions=[item.session for item in todo],
            labels=[item.name or None for item in todo],
        )
    )


def _newest_first(sessions: Iterable[StoredSession]) -> list[StoredSession]:
    """By number; of one number the last that was linked comes first, because WhatsApp counts its devices upwards."""
    return sorted(sessions, key=lambda session: (session.number, -_index(session.jid)))


def _index(jid: str) -> int:
    digits = jid.partition("@")[0].partition(":")[2]
    return int(digits) if digits.isdigit() else 0


def _report(items: Sequence[Item], *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(item) for item in items])
        return
    console = make_console()
    if not items:
        console.print("the other store holds no session to import")
        return
    table = make_table("number", "name", "session", "device", "", "why", whole=("device", ""))
    for item in items:
        does = Text(item.does, _STYLES[item.does])
        table.add_row("+" + item.number, Text(item.name), item.session, item.device, does, item.why)
    console.print(table)
    parts = ("import", "to import"), ("here", "here already"), ("skip", "to skip"), ("conflict", "in conflict")
    numbers = ((sum(item.does == does for item in items), words) for does, words in parts)
    console.print(Text(", ".join(f"{number} {words}" for number, words in numbers if number), "bold"))


def _tell(text: str) -> None:
    if text:
        say(text, err=True)


def _check_source(source: str) -> None:
    try:
        conninfo_to_dict(source)
    except ProgrammingError:
        raise UsageError(
            "--from: the value (not shown) is not the address of a PostgreSQL database; write "
            "postgresql://user:password@host/database, and behind it ?options=-csearch_path%3DNAME if its tables are in a schema"
        ) from None
