"""`shardd device`: add, change, pause and remove the sending accounts; a running shardd applies changes at once."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from shardd.cli.acts import acts, change_each, change_some, report_changes, under_way
from shardd.cli.database import with_database
from shardd.cli.device.settings import check_pace, device_options, read_options
from shardd.cli.help import examples
from shardd.cli.lazy import LazyGroup
from shardd.cli.names import Refusals, id_argument, ids_argument, refuse, without
from shardd.cli.options import OneOf, config_option, database_config_option
from shardd.cli.output import SANDBOX, say
from shardd.config import TRANSPORTS, Config
from shardd.config.transports import REPORTING
from shardd.config.transports.cloud_api import CLOUD_API, PHONE_NUMBER_ID
from shardd.config.transports.device_settings import check_device, remedy_of
from shardd.errors import SharddError, UsageError
from shardd.pacing import CLASSES
from shardd.queue.acts import joined, named
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceChange, DeviceRow, NewDevices
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.queries import Changes, Queries
from shardd.queue.unknown_device import unknown_device
from shardd.states import CAN_SEND, DeviceState, JobState
from shardd.words import count

IN_FLIGHT_TIMEOUT: Final = 10.0
"""Seconds that `device remove --cancel-jobs` waits for jobs in flight."""
POLL_EVERY: Final = 0.2
STILL_HEARD: Final = (
    "what people write there is not stored from now on, but who asks for no more messages is heard for as long as the platform "
    "reports to shardd: leave its webhook registered"
)
CANCELLED_WITH_DEVICE: Final = "cancelled: its device was removed"


@click.group(
    "device",
    epilog=examples("shardd device list", "shardd device pause berlin-1 --why='new phone'"),
    cls=LazyGroup,
    lazy={
        "import": "shardd.cli.device.adopt:import_",
        "link": "shardd.cli.device.link:link",
        "list": "shardd.cli.device.show:list_",
        "logout": "shardd.cli.device.session:logout",
        "move": "shardd.cli.device.move:move",
        "pair": "shardd.cli.device.pair:pair",
        "show": "shardd.cli.device.show:show",
        "take-over": "shardd.cli.device.session:take_over",
        "webhook": "shardd.cli.device.webhook:webhook",
    },
)
def device_group() -> None:
    """Add, pair, list, pause and remove devices.

    Where a command takes several IDs, - stands for ids on stdin, one per line.
    """


@device_group.command(
    "add",
    epilog=examples(
        "shardd device add berlin-1 --transport=whatsapp", "shardd device add --transport=sandbox - < ids.txt"
    ),
)
@ids_argument("device")
@click.option("--transport", required=True, type=OneOf(list(TRANSPORTS)), help="How they send.")
@device_options
@config_option
@acts("add")
def add(*, ids: list[str], transport: str, config: Config, **options: Any) -> None:
    """Add devices with the same settings.

    A removed device comes back with these settings. What is not given is as configured.
    """
    fields, classes = read_options(**options)
    has_sessions = TRANSPORTS[transport].has_sessions
    new = NewDevices(
        ids=ids,
        transport=transport,
        state=DeviceState.UNPAIRED if has_sessions else DeviceState.READY,
        classes=classes,
        **fields,
    )
    check_device(transport, new.settings or {}, new.proxy)
    check_pace(config, new)

    async def add_unless_taken(database: Queries) -> set[str]:
        await _check_number(database, new.ids, transport, new.settings or {})
        return await DeviceAdmin(database).add(new)

    added = change_each(config, "device", add_unless_taken, transport)
    if added:
        next_step = ": their messages reach nobody" if transport == SANDBOX else ""
        if has_sessions:
            first = next(one for one in new.ids if one in added)
            next_step = f"; pair {'it' if len(added) == 1 else 'each'}: shardd device pair {first}"
        say(f"added {count(len(added), f'{transport} device')}{next_step}")
    refuse("device", {"already exists; nothing was changed": without(new.ids, added)})


@device_group.command(
    "set",
    epilog=examples("shardd device set berlin-1 --gap=10s..30s", "shardd device set berlin-1 --daily-limit=default"),
)
@ids_argument("device")
@device_options
@click.option(
    "--clear-class",
    "cleared",
    multiple=True,
    type=OneOf(CLASSES),
    help="Remove all settings of a class, so that it is as configured.",
)
@config_option
@acts("set")
def set_(*, ids: list[str], cleared: tuple[str, ...], config: Config, **options: Any) -> None:
    """Change settings of devices.

    What is not given stays as it is. The word `default` makes a setting as configured, an empty --label removes it.
    """
    fields, classes = read_options(**options)
    if not fields and not classes and not cleared:
        raise UsageError("nothing to change: name a setting, such as --gap 5s..15s; see shardd device set --help")
    change = DeviceChange(fields=fields, classes=classes, cleared=cleared)
    names = ", ".join([*fields, *(f"class {name}" for name in sorted({*classes, *cleared}))])
    done = change_some(config, "device", lambda database: _set(database, config, ids, change), names)
    report_changes("changed", "device", done, {"unknown": without(ids, done.found)})


async def _check_number(database: Queries, names: Sequence[str], transport: str, settings: Mapping[str, Any]) -> None:
    """Raise UsageError if two devices would have one number of the Cloud API: Meta reports each message to it once."""
    number = settings.get(PHONE_NUMBER_ID)
    if transport != CLOUD_API.name or number is None:
        return
    others = await DeviceAdmin(database).find(transport=transport)
    taken = [one.id for one in others if one.id not in names and one.settings.get(PHONE_NUMBER_ID) == number]
    if taken or len(names) > 1:
        whose = f"is that of device {taken[0]}" if taken else "cannot be that of several devices"
        raise UsageError(
            f"settings.{PHONE_NUMBER_ID}: {number} {whose}: one device sends and hears all of a number; change it with "
            "shardd device set ID --settings; nothing was changed"
        )


async def _set(database: Queries, config: Config, names: list[str], change: DeviceChange) -> Changes:
    devices = DeviceAdmin(database)
    for device in await devices.find(ids=names):
        kept = {name: settings for name, settings in device.classes.items() if name not in change.cleared}
        classes = {name: {**kept.get(name, {}), **change.classes.get(name, {})} for name in {*kept, *change.classes}}
        changed = dataclasses.replace(device, classes=classes, **change.fields)
        try:
            check_pace(config, changed)
            if "settings" in change.fields or "proxy" in change.fields:
                check_device(changed.transport, changed.settings, changed.proxy)
                if "settings" in change.fields:
                    await _check_number(database, names, changed.transport, changed.settings)
        except SharddError as error:
            raise UsageError(f"device {device.id}: {error}; nothing was changed") from None
    return await devices.change(names, change)


@device_group.command("pause", epilog=examples("shardd device pause berlin-1 --why='new phone'"))
@ids_argument("device")
@click.option("--why", help="Shown as why their jobs wait.")
@database_config_option
@acts("pause")
def pause(ids: list[str], why: str | None, config: Config) -> None:
    """Pause devices; their jobs wait.

    What a worker has in flight is finished.
    """
    done = change_some(config, "device", lambda database: DeviceAdmin(database).pause(ids, why), why or "")
    report_changes("paused", "device", done, {"unknown": without(ids, done.found)})


@device_group.command("resume", epilog=examples("shardd device resume berlin-1"))
@ids_argument("device")
@database_config_option
@acts("resume")
def resume(ids: list[str], config: Config) -> None:
    """Resume paused devices."""
    done = change_some(config, "device", lambda database: DeviceAdmin(database).resume(ids))
    report_changes("resumed", "device", done, {"unknown": without(ids, done.found)})


@device_group.command("remove", epilog=examples("shardd device remove berlin-1 --cancel-jobs"))
@ids_argument("device")
@click.option("--cancel-jobs", is_flag=True, help="Cancel the jobs that wait for them.")
@database_config_option
@acts("remove")
def remove(ids: list[str], cancel_jobs: bool, config: Config) -> None:
    """Remove devices.

    Their ended jobs remain readable; `shardd device add` brings them back. Jobs that they got from a device group go back to
    the group. What people write to them is not stored any more; an opt-out still counts where the platform goes on reporting.
    """
    with_database(config, lambda database: _remove(database, config, ids, cancel_jobs=cancel_jobs)).finish()


async def _remove(database: Database, config: Config, names: list[str], *, cancel_jobs: bool) -> Refusals:
    found = {one.id: one for one in await DeviceAdmin(database).find(ids=names)}
    there = {name for name, one in found.items() if one.session is None}
    removed: set[str] = set()
    if there:
        async with under_way(database, config, *named("device", sorted(there))) as here:
            removed, cancelled = await _remove_those(database, there, cancel_jobs=cancel_jobs)
            done = f"cancelled {count(cancelled, 'job')}" if cancelled else ""
            if removed or cancelled:
                only = "" if removed == there else f"removed only {', '.join(sorted(removed)) or 'none'}"
                here.detail = joined(done, only, here.detail)
            else:
                here.result = "not removed, because jobs wait"
        if cancelled:
            say(f"cancelled {count(cancelled, 'job')}")
    if removed:
        say(f"removed {count(len(removed), 'device')}")
        if any(found[name].transport in REPORTING for name in removed):
            say(STILL_HEARD)
    busy, linked = sorted(there - removed), sorted(found.keys() - there)
    refusals = Refusals()
    if cancel_jobs:
        why = (
            "not removed, because a worker has a job in flight (shardd job list --state sending); try again when it has ended, "
            "which needs shardd to run"
        )
    else:
        shows = f"shown by: shardd job list --device {_example(busy)}"
        why = f"not removed, because jobs wait; cancel them with --cancel-jobs ({shows})"
    refusals.add(busy, "device", why)
    why = f"not removed, because it is linked to a phone; first: shardd device logout {_example(linked)}"
    refusals.add(linked, "device", why)
    refusals.add(without(names, found), "device", "unknown")
    return refusals


async def _remove_those(database: Database, names: set[str], *, cancel_jobs: bool) -> tuple[set[str], int]:
    """Those of these devices that are removed, and how many of their jobs are cancelled."""
    devices, jobs = DeviceAdmin(database), JobAdmin(database)
    await jobs.return_to_pools(sorted(names))
    removed = await devices.remove(sorted(names))
    cancelled = 0
    deadline = time.monotonic() + IN_FLIGHT_TIMEOUT
    while cancel_jobs and removed != names:
        await jobs.return_to_pools(sorted(names - removed))
        cancelled += await jobs.cancel_all(Traits(device_ids=sorted(names - removed)), CANCELLED_WITH_DEVICE)
        removed |= await devices.remove(sorted(names - removed))
        if time.monotonic() > deadline:
            break
        if removed != names:
            await asyncio.sleep(POLL_EVERY)
    return removed, cancelled


def _example(names: list[str]) -> str:
    """For a command that takes one name: that name, or the first."""
    return f"{names[0]}, and so on" if len(names) > 1 else "".join(names)


@device_group.command("replace", epilog=examples("shardd device replace berlin-1 berlin-2"))
@id_argument("device", "old", "OLD")
@id_argument("device", "new", "NEW")
@database_config_option
@acts("replace")
def replace(old: str, new: str, config: Config) -> None:
    """Move the waiting jobs of device OLD to device NEW.

    A job in flight stays with OLD, and so does an answer (reply_to) or a revocation: only OLD can send it. The pace of NEW
    applies to all its jobs. OLD itself is unchanged: let the producers name NEW, too. Jobs of device groups go back to their
    groups.
    """
    if old == new:
        raise UsageError(f"{old} cannot replace itself: name two devices")
    after = with_database(config, lambda database: _replace(database, config, old, new))
    if after.paused_at is not None:
        say(f"they wait: {new} is paused; let it send: shardd device resume {new}")
    elif (state := DeviceState(after.state)) not in CAN_SEND:
        say(f"they wait: {new} is {state}; {remedy_of(after.transport, state).format(id=new)}")


async def _replace(database: Database, config: Config, old: str, new: str) -> DeviceRow:
    """Move and report; NEW as it is now."""
    found = {device.id: device for device in await DeviceAdmin(database).find(ids=[old, new])}
    for one in without([old, new], found):
        raise await unknown_device(database, one)
    before, after = found[old], found[new]
    if (before.transport == SANDBOX) != (after.transport == SANDBOX):
        raise UsageError(
            f"{old} sends by {before.transport} and {new} by {after.transport}: jobs do not move between the sandbox and real "
            "devices"
        )
    jobs = JobAdmin(database)
    async with under_way(database, config, f"device {old}", f"by device {new}") as here:
        back = await jobs.return_to_pools([old])
        moved = await jobs.move(old=old, new=new)
        here.detail = joined(here.detail, f"moved {count(moved, 'job')}")
    stays = await jobs.count_unmovable(old)
    counts = await jobs.count_cancels(Traits(state=JobState.SENDING, device_ids=[old]))
    say(f"moved {count(moved, 'job')} from {old} to {new}")
    if back:
        say(f"{count(back, 'job')} of device groups went back to their groups")
    for number, what in ((stays.answers, "to messages (reply_to)"), (stays.revocations, "of its messages")):
        if number:
            noun = "answer" if what.startswith("to") else "revocation"
            stay, them = ("stays", "it") if number == 1 else ("stay", "them")
            say(f"{count(number, noun)} {what} {stay} with {old}, because only {old} can send {them}")
    if left := sum(some.jobs for some in counts):
        stay, come = ("stays", "it comes") if left == 1 else ("stay", "they come")
        say(f"{count(left, 'job')} in flight {stay} with {old}; repeat this command if {come} back to the queue")
    return after
