"""`shardd device`: the sending accounts.

The commands talk to the database, so they work whether shardd runs or not; a shardd that runs takes changes over at once.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import click

from shardd.cli.device_settings import check_gaps, read_gaps, read_proxy, read_settings
from shardd.cli.device_view import device_json, show_device, show_devices
from shardd.cli.names import Refusals, device_ids, some
from shardd.cli.options import config_option
from shardd.cli.output import SANDBOX, count, print_json
from shardd.cli.reach import with_database
from shardd.config import Config, load_config
from shardd.errors import UsageError
from shardd.pacing import day_of
from shardd.queue.database import Database
from shardd.queue.device_admin import PAUSED, DeviceAdmin, NewDevices
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.states import DeviceState
from shardd.transports.device_settings import check_device
from shardd.transports.registry import NEEDS_SESSION, TRANSPORTS

IN_HAND_PATIENCE: Final = 10.0
"""Seconds that `device remove --cancel-jobs` waits for jobs that a worker has in hand."""
LOOK_EVERY: Final = 0.2
CANCELLED_WITH_DEVICE: Final = "cancelled: its device was removed"

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.group("device")
def device_group() -> None:
    """Add, pair, look at, pause and remove the devices that send.

    Commands that take several IDs read them from stdin, one per line, where - stands for an ID.
    """


@device_group.command("add")
@_ids
@click.option("--transport", required=True, type=click.Choice(list(TRANSPORTS)), help="How they send.")
@click.option("--label", help="A name for people.")
@click.option("--proxy", help="Proxy of their connections: http://user:password@host:port or socks5://…")
@click.option(
    "--gap", metavar="MIN..MAX", help="Random pause between two messages, such as 5s..15s; else as configured."
)
@click.option("--gap-min", metavar="DURATION", help="The shortest pause, such as 5s.")
@click.option("--gap-max", metavar="DURATION", help="The longest pause, such as 15s.")
@click.option(
    "--daily-limit", type=click.IntRange(0, 1_000_000), help="Messages a day; 0: no limit; else as configured."
)
@click.option("--settings", metavar="JSON", help="Settings of the transport, as a JSON object.")
@config_option
def add(
    *,
    ids: tuple[str, ...],
    transport: str,
    label: str | None,
    proxy: str | None,
    gap: str | None,
    gap_min: str | None,
    gap_max: str | None,
    daily_limit: int | None,
    settings: str | None,
    config_file: Path,
) -> None:
    """Add devices that differ in nothing but their ids. A device that was removed comes back with these settings."""
    low, high = read_gaps(gap, gap_min, gap_max)
    new = NewDevices(
        ids=device_ids(ids),
        transport=transport,
        state=DeviceState.UNPAIRED if transport in NEEDS_SESSION else DeviceState.READY,
        label=label,
        proxy=read_proxy(proxy),
        settings=read_settings(settings),
        gap_min=low,
        gap_max=high,
        daily_limit=daily_limit,
    )
    check_device(transport, new.settings or {}, new.proxy)
    config = load_config(config_file)
    check_gaps(config, new.gap_min, new.gap_max)
    added = with_database(config, lambda database: DeviceAdmin(database).add(new))
    if added:
        click.echo(f"added {count(len(added), f'{transport} device')}{_what_next(new, added)}")
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
@config_option
def list_(state: str | None, transport: str | None, as_json: bool, config_file: Path) -> None:
    """List the devices."""
    config = load_config(config_file)
    found = with_database(
        config, lambda database: DeviceAdmin(database).find(_today(config), state=state, transport=transport)
    )
    if as_json:
        print_json([device_json(one, config) for one in found])
    else:
        show_devices(found, config)


@device_group.command("show")
@click.argument("device_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs; passwords are masked.")
@config_option
def show(device_id: str, as_json: bool, config_file: Path) -> None:
    """Show one device: its state and why, what to do, and what waits for it."""
    ids = device_ids([device_id])
    config = load_config(config_file)
    found = with_database(config, lambda database: DeviceAdmin(database).find(_today(config), ids=ids))
    if not found:
        raise UsageError(f"device {some(ids)} is unknown; the others: shardd device list")
    if as_json:
        print_json(device_json(found[0], config))
    else:
        show_device(found[0], config)


@device_group.command("pause")
@_ids
@click.option("--why", help="Shown wherever somebody asks why its jobs wait.")
@config_option
def pause(ids: tuple[str, ...], why: str | None, config_file: Path) -> None:
    """Hold devices back; their jobs wait. What a worker has in hand is finished."""
    names = device_ids(ids)
    done = with_database(load_config(config_file), lambda database: DeviceAdmin(database).pause(names, why))
    _tell_done("paused", names, done)


@device_group.command("resume")
@_ids
@config_option
def resume(ids: tuple[str, ...], config_file: Path) -> None:
    """Let paused devices send again."""
    names = device_ids(ids)
    done = with_database(load_config(config_file), lambda database: DeviceAdmin(database).resume(names))
    _tell_done("resumed", names, done)


@device_group.command("remove")
@_ids
@click.option("--cancel-jobs", is_flag=True, help="Cancel the jobs that wait for them.")
@config_option
def remove(ids: tuple[str, ...], cancel_jobs: bool, config_file: Path) -> None:
    """Take devices out of service. Their finished jobs stay readable; `device add` brings them back."""
    names = device_ids(ids)
    with_database(load_config(config_file), lambda database: _remove(database, names, cancel_jobs=cancel_jobs)).finish()


async def _remove(database: Database, names: list[str], *, cancel_jobs: bool) -> Refusals:
    devices, jobs = DeviceAdmin(database), JobAdmin(database)
    found = {one.id: one for one in await devices.find(datetime.now(UTC).date(), ids=names)}
    there = {name for name, one in found.items() if one.session is None}
    removed = await devices.remove(sorted(there))
    cancelled = 0
    deadline = time.monotonic() + IN_HAND_PATIENCE
    while cancel_jobs and removed != there:
        cancelled += await jobs.cancel_all(Traits(device_ids=sorted(there - removed)), CANCELLED_WITH_DEVICE)
        removed |= await devices.remove(sorted(there - removed))
        if time.monotonic() > deadline:
            break
        if removed != there:
            await asyncio.sleep(LOOK_EVERY)
    if cancelled:
        click.echo(f"cancelled {count(cancelled, 'job')}")
    if removed:
        click.echo(f"removed {count(len(removed), 'device')}")
    refusals = Refusals()
    left = sorted(there - removed)
    why = (
        "not removed, because a worker has a job in hand (shardd job list --state sending); try again when it has ended, "
        "which needs shardd to run"
        if cancel_jobs
        else "not removed, because jobs wait; cancel them with --cancel-jobs (shardd job list --device ID shows them)"
    )
    refusals.tell(left, "device", why)
    paired = sorted(found.keys() - there)
    refusals.tell(paired, "device", "not removed, because a phone is linked to it; first: shardd device logout ID")
    refusals.tell([one for one in names if one not in found], "device", "unknown")
    return refusals


def _today(config: Config) -> date:
    return day_of(datetime.now(UTC), config.pacing.zone)


def _tell_done(word: str, names: list[str], done: set[str]) -> None:
    if done:
        click.echo(f"{word} {count(len(done), 'device')}")
    refusals = Refusals()
    refusals.tell([one for one in names if one not in done], "device", "unknown")
    refusals.finish()


def _what_next(new: NewDevices, added: set[str]) -> str:
    if new.transport == SANDBOX:
        return ": their messages reach nobody"
    if new.transport not in NEEDS_SESSION:
        return ""
    first = next(one for one in new.ids if one in added)
    return f"; pair {'it' if len(added) == 1 else 'each'}: shardd device pair {first}"
