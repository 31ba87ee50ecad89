"""`shardd device import`: sessions of another whatsmeow program become devices, without pairing again.

Nothing is changed without --apply. The sessions are copied before the devices are made, so an interrupted import is simply
repeated.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import click

from shardd.cli.acts import acts, under_way
from shardd.cli.device.session import open_session_context
from shardd.cli.device.settings import check_gaps, read_setting
from shardd.cli.help import examples
from shardd.cli.listing import Column, Listing
from shardd.cli.names import Refusals, checked_names, confirm, without
from shardd.cli.options import ReadBy, config_option, json_option, run_async
from shardd.cli.output import Text, make_console, say
from shardd.config import Config
from shardd.config.pacing import LIMIT
from shardd.config.values.network import DSN, PROXY_URL
from shardd.pairing.context import WITH_SESSIONS, SessionContext
from shardd.queue.acts import joined, named
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.sessions import Adoption, number_of
from shardd.transports.whatsapp.sessions.importing import ImportPlan, import_sessions, plan_import
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import StoredSession
from shardd.words import count

SOURCE_VARIABLE: Final = "SHARDD_IMPORT_FROM"
WARNING: Final = (
    "First stop the program that used these sessions, for good: WhatsApp keeps one connection per session, and two programs "
    "on one session replace each other forever."
)
_STYLES: Final = {"import": "green", "existing": "dim", "skip": "yellow", "conflict": "red"}
_WORDS: Final = {"import": "to import", "existing": "existing", "skip": "to skip", "conflict": "in conflict"}


@dataclass(frozen=True, slots=True)
class Item:
    """A session of the other store, and what an import does with it."""

    session: str
    number: str
    name: str
    device: str
    does: Literal["import", "existing", "skip", "conflict"]
    why: str


ITEMS: Final = Listing[Item](
    one="session",
    none="the other store has no session to import",
    columns=[
        Column("number", lambda item: f"+{item.number}"),
        Column("name", lambda item: item.name),
        Column("session", lambda item: item.session),
        Column("device", lambda item: item.device, whole=True),
        Column("", lambda item: Text(item.does, _STYLES[item.does]), whole=True),
        Column("why", lambda item: item.why),
    ],
)


@click.command(
    "import",
    epilog=examples(
        "shardd device import --from=postgresql://old/wa", "shardd device import --from=postgresql://old/wa --apply"
    ),
)
@click.argument("numbers", nargs=-1, metavar="[NUMBER]...")
@click.option(
    "--from",
    "source",
    required=True,
    type=ReadBy(DSN),
    envvar=SOURCE_VARIABLE,
    metavar="DSN",
    help=f"PostgreSQL database of the other program. ${SOURCE_VARIABLE} keeps its password out of the process list.",
)
@click.option("--apply/--dry-run", help="Import, or only report (the default).")
@click.option("--prefix", default="", help="Prefix of a new device's id, before its phone number.")
@click.option(
    "--gap", metavar="MIN..MAX", help="Random pause between two messages of a new device; default: as configured."
)
@click.option("--daily-limit", type=ReadBy(LIMIT), help="Messages per day of a new device; 0: no limit.")
@click.option(
    "--proxy",
    type=ReadBy(PROXY_URL),
    metavar="TEXT",
    help="Proxy of new devices: http://user:password@host:port or socks5://…",
)
@click.option("--yes", is_flag=True, help="Do not ask whether the other program has stopped.")
@json_option("Print the report as a list of objects, for programs.")
@config_option
@acts("import")
@run_async
async def import_(
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
    """Import sessions of another program.

    Of any whatsmeow program that keeps its sessions in PostgreSQL: all of them, or those of the given NUMBERs. A device that
    exists under a session's id, without a session of its own, gets that one.
    """
    gaps = {} if gap is None else read_setting("--gap", "gap", gap)
    check_gaps(config, gaps.get("gap_min"), gaps.get("gap_max"))
    usual = Adoption(ids=(), sessions=(), labels=(), proxy=proxy, daily_limit=daily_limit, **gaps)
    wanted = {"".join(filter(str.isdigit, number)) for number in numbers}
    async with open_session_context(config) as context:
        # At most empty tables, which the plan needs for its comparison.
        await prepare_store(context.store, pgbouncer=context.pgbouncer)
        plan = await plan_import(source, context.store)
        items = plan_items(plan, await DeviceAdmin(context.database).find(), prefix, wanted)
        todo = [item for item in items if item.does == "import"]
        ITEMS.show(items, as_json=as_json, counted=False)
        if items and not as_json:
            make_console().print(Text(_summary(items), "bold"))
        absent = wanted - {item.number for item in items}
        refusals = Refusals()
        refusals.add(sorted(absent), "number", "the other store has no session of it")
        if not apply:
            if todo:
                say(f"nothing was changed. {WARNING} Then repeat this with --apply.", err=True)
        elif todo:
            say(WARNING, err=True)
            confirm(f"Is it stopped? Import {count(len(todo), 'session')}?", yes=yes)
            async with under_way(context.database, config, *named("device", [item.device for item in todo])) as here:
                done = await _apply(context, source, plan, todo, usual)
                here.detail = joined(f"imported {count(len(done), 'device')}", here.detail)
            say(f"imported {count(len(done), 'device')}", err=True)
            left = without([item.device for item in todo], done)
            refusals.add(left, "device", "not made: its id or number was taken meanwhile; import again for a report")
        refusals.finish()


def plan_items(plan: ImportPlan, devices: Sequence[DeviceRow], prefix: str, wanted: set[str]) -> list[Item]:
    """What an import does with each session of the other store; `wanted` numbers only, unless that is empty."""
    by_id = {device.id: device for device in devices}
    by_session = {device.session: device.id for device in devices if device.session}
    by_number = {number_of(session): device_id for session, device_id in by_session.items()}
    items = []
    seen: set[str] = set()
    for session in _newest_first([*plan.new, *plan.present]):
        if wanted and session.number not in wanted:
            continue
        (device_id,) = checked_names([prefix + session.number], "device")
        there = by_id.get(device_id)
        does: Literal["import", "existing", "skip", "conflict"] = "import"
        why = "new device"
        if session.jid in by_session:
            does, device_id, why = "existing", by_session[session.jid], "this device has it already"
        elif session.number in seen:
            does, why = "skip", "an older session of this number"
        elif session.number in by_number:
            does, why = "conflict", f"device {by_number[session.number]} has this number, with another session"
        elif there is not None and (there.transport not in WITH_SESSIONS or there.session is not None):
            does, why = "conflict", f"the id is taken by a device of {there.transport}; choose another with --prefix"
        elif there is not None:
            why = "the device is there and gets it"
        seen.add(session.number)
        name = session.push_name or session.business_name
        items.append(Item(session.jid, session.number, name, device_id, does, why))
    return items


def _summary(items: Sequence[Item]) -> str:
    numbers: Counter[str] = Counter(item.does for item in items)
    return ", ".join(f"{numbers[does]} {words}" for does, words in _WORDS.items() if does in numbers)


async def _apply(
    context: SessionContext, source: str, plan: ImportPlan, todo: Sequence[Item], usual: Adoption
) -> set[str]:
    """Import; the ids of the devices that got a session."""
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
    """By number; within a number the last linked one comes first: WhatsApp counts its devices upwards."""
    return sorted(sessions, key=lambda session: (session.number, -_index(session.jid)))


def _index(jid: str) -> int:
    digits = jid.partition("@")[0].partition(":")[2]
    return int(digits) if digits.isdigit() else 0
