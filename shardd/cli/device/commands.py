"""`shardd device`: the sending accounts.

The commands talk to the database, so they work whether shardd runs or not; a shardd that runs takes changes over at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import click

from shardd.cli.database import with_database
from shardd.cli.device.outlook import ask_outlook, outlook_json, warm_days
from shardd.cli.device.pace import check_pace, pace_options, read_pace
from shardd.cli.device.settings import read_proxy, read_settings
from shardd.cli.device.view import device_json, show_device, show_devices
from shardd.cli.lazy import LazyGroup
from shardd.cli.names import Refusals, device_ids, some
from shardd.cli.options import config_option, database_config_option
from shardd.cli.output import SANDBOX, count, print_json, say
from shardd.config import TRANSPORTS, Config
from shardd.config.transports.device_settings import check_device
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.devices import PAUSED, DeviceAdmin, NewDevices
from shardd.queue.jobs import JobAdmin, Traits
from shardd.states import DeviceState

IN_HAND_PATIENCE: Final = 10.0
"""Seconds that `device remove --cancel-jobs` waits for jobs that a worker has in flight."""
LOOK_EVERY: Final = 0.2
CANCELLED_WITH_DEVICE: Final = "cancelled: its device was removed"

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.group(
    "device",
    cls=LazyGroup,
    lazy={
        "import": "shardd.cli.device.adopt:import_",
        "logout": "shardd.cli.device.session:logout",
        "pair": "shardd.cli.device.pair:pair",
        "replace": "shardd.cli.device.replace:replace",
        "set": "shardd.cli.device.set:set_",
        "take-over": "shardd.cli.device.session:take_over",
    },
)
def device_group() -> None:
    """Add, pair, look at, pause and remove the devices that send.

    Commands that take several IDs read them from stdin, one per line, where - stands for an ID.
    """


@device_group.command("add")
@_ids
@click.option("--transport", required=True, type=click.Choice(list(TRANSPORTS)), help="How they send.")
@click.option("--label", help="A name for people.")
@click.option("--proxy", help="Proxy of their connections: http://user:password@host:port or socks5://…")
@click.option("--settings", metavar="JSON", help="Settings of the transport, as a JSON object.")
@pace_options
@config_option
def add(
    *,
    ids: tuple[str, ...],
    transport: str,
    label: str | None,
    proxy: str | None,
    settings: str | None,
    config: Config,
    **pace: Any,
) -> None:
    """Add devices that differ in nothing but their ids. A device that was removed comes back with these settings.

    What is not said of its pace is as configured.
    """
    fields, classes = read_pace(**pace)
    new = NewDevices(
        ids=device_ids(ids),
        transport=transport,
        state=DeviceState.UNPAIRED if TRANSPORTS[transport].has_sessions else DeviceState.READY,
        label=label,
        proxy=read_proxy(proxy),
        settings=read_settings(settings),
        classes=classes,
        **fields,
    )
    check_device(transport, new.settings or {}, new.proxy)
    check_pace(config, new)
    added = with_database(config, lambda database: DeviceAdmin(database).add(new))
    if added:
        say(f"added {count(len(added), f'{transport} device')}{_what_next(new, added)}")
    refusals = Refusals()
    refusals.tell([one for one in new.ids if one not in added], "device", "there already; nothing was changed")
    refusals.finish()


@device_group.command("list")
@click.option(
    "--state", type=click.Choice([*(state.value for state in DeviceState), PAUSED]), help="Only devices in this state."
)
@click.option("--transport", type=click.Choice(list(TRANSPORTS)), help="Only devices that send in this way.")
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: a list of objects as `device show --json` prints one."
)
@database_config_option
def list_(state: str | None, transport: str | None, as_json: bool, config: Config) -> None:
    """List the devices."""
    found = with_database(
        config,
        lambda database: DeviceAdmin(database).find(state=state, transport=transport, warm_days=warm_days(config)),
    )
    if as_json:
        print_json([device_json(one, config) for one in found])
    else:
        show_devices(found, config, chosen=state is not None or transport is not None)


@device_group.command("show")
@click.argument("device_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs; passwords are masked.")
@database_config_option
def show(device_id: str, as_json: bool, config: Config) -> None:
    """Show one device: its state and why, what to do, what waits for it, and when it may send next."""
    ids = device_ids([device_id])
    found = with_database(config, lambda database: DeviceAdmin(database).find(ids=ids, warm_days=warm_days(config)))
    if not found:
        raise UsageError(f"device {some(ids)} is unknown; the others: shardd device list")
    device = found[0]
    outlook = ask_outlook(device, config)
    if as_json:
        print_json(device_json(device, config) | outlook_json(outlook))
    else:
        show_device(device, config, outlook)


@device_group.command("pause")
@_ids
@click.option("--why", help="Shown wherever somebody asks why its jobs wait.")
@database_config_option
def pause(ids: tuple[str, ...], why: str | None, config: Config) -> None:
    """Hold devices back; their jobs wait. What a worker has in flight is finished."""
    names = device_ids(ids)
    done = with_database(config, lambda database: DeviceAdmin(database).pause(names, why))
    _tell_done("paused", names, done)


@device_group.command("resume")
@_ids
@database_config_option
def resume(ids: tuple[str, ...], config: Config) -> None:
    """Let paused devices send again."""
    names = device_ids(ids)
    done = with_database(config, lambda database: DeviceAdmin(database).resume(names))
    _tell_done("resumed", names, done)


@device_group.command("remove")
@_ids
@click.option("--cancel-jobs", is_flag=True, help="Cancel the jobs that wait for them.")
@database_config_option
def remove(ids: tuple[str, ...], cancel_jobs: bool, config: Config) -> None:
    """Take devices out of service. Their finished jobs stay readable; `device add` brings them back.

    Jobs of a device group that they got are left to the other devices of the group.
    """
    names = device_ids(ids)
    with_database(config, lambda database: _remove(database, names, cancel_jobs=cancel_jobs)).finish()


async def _remove(database: Database, names: list[str], *, cancel_jobs: bool) -> Refusals:
    devices, jobs = DeviceAdmin(database), JobAdmin(database)
    found = {one.id: one for one in await devices.find(ids=names)}
    there = {name for name, one in found.items() if one.session is None}
    await jobs.give_back(sorted(there))
    removed = await devices.remove(sorted(there))
    cancelled = 0
    deadline = time.monotonic() + IN_HAND_PATIENCE
    while cancel_jobs and removed != there:
        await jobs.give_back(sorted(there - removed))
        cancelled += await jobs.cancel_all(Traits(device_ids=sorted(there - removed)), CANCELLED_WITH_DEVICE)
        removed |= await devices.remove(sorted(there - removed))
        if time.monotonic() > deadline:
            break
        if removed != there:
            await asyncio.sleep(LOOK_EVERY)
    if cancelled:
        say(f"cancelled {count(cancelled, 'job')}")
    if removed:
        say(f"removed {count(len(removed), 'device')}")
    refusals = Refusals()
    left = sorted(there - removed)
    why = (
        "not removed, because a worker has a job in flight (shardd job list --state sending); try again when it has ended, "
        "which needs shardd to run"
        if cancel_jobs
        else "not removed, because jobs wait; cancel them with --cancel-jobs (shardd job list --device ID shows them)"
    )
    refusals.tell(left, "device", why)
    paired = sorted(found.keys() - there)
    refusals.tell(paired, "device", "not removed, because a phone is linked to it; first: shardd device logout ID")
    refusals.tell([one for one in names if one not in found], "device", "unknown")
    return refusals


def _tell_done(word: str, names: list[str], done: set[str]) -> None:
    if done:
        say(f"{word} {count(len(done), 'device')}")
    refusals = Refusals()
    refusals.tell([one for one in names if one not in done], "device", "unknown")
    refusals.finish()


def _what_next(new: NewDevices, added: set[str]) -> str:
    if new.transport == SANDBOX:
        return ": their messages reach nobody"
    if not TRANSPORTS[new.transport].has_sessions:
        return ""
    first = next(one for one in new.ids if one in added)
    return f"; pair {'it' if len(added) == 1 else 'each'}: shardd device pair {first}"
