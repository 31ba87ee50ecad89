"""`shardd group`: devices that share work.

A job that names a device group instead of a device waits in the group's pool until one of its devices is free. The commands talk
to the database, so they work whether shardd runs or not.
"""

from __future__ import annotations

import click

from shardd.cli.database import with_database
from shardd.cli.group.view import group_json, show_group, show_groups, whole_group_json
from shardd.cli.names import Refusals, device_ids, short_names
from shardd.cli.options import database_config_option
from shardd.cli.output import count, print_json, say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.groups import GroupAdmin, GroupRow, Member

_group = click.argument("group", metavar="GROUP")
_devices = click.argument("devices", nargs=-1, metavar="DEVICE...")


@click.group("group")
def group_group() -> None:
    """Make, look at, change and delete groups of devices that share work.

    DEVICE may be -: ids are read from stdin, one per line.
    """


@group_group.command("add")
@_group
@_devices
@click.option("--label", help="A name for people.")
@database_config_option
def add(group: str, devices: tuple[str, ...], label: str | None, config: Config) -> None:
    """Make a group, or put more devices into one that is there. A device may be in several groups."""
    (name,), names = short_names([group], "group"), device_ids(devices) if devices else []
    added = with_database(config, lambda database: GroupAdmin(database).add(name, names, label))
    if added.group_is_new:
        say(f"made group {name}" + (f" of {count(len(added.new), 'device')}" if added.new else ""))
    elif names:
        say(f"put {count(len(added.new), 'device')} into group {name}")
    else:
        say(f"group {name} is there" + ("" if label is None else ", and has this label now"))
    refusals = Refusals()
    refusals.tell(
        [one for one in names if one not in added.known], "device", "unknown; add devices with: shardd device add"
    )
    refusals.finish()


@group_group.command("remove")
@_group
@_devices
@database_config_option
def remove(group: str, devices: tuple[str, ...], config: Config) -> None:
    """Take devices out of a group. Jobs that they were given and that no worker has in flight go back to the pool."""
    (name,), names = short_names([group], "group"), device_ids(devices)

    async def work(database: Database) -> tuple[set[str], int]:
        await _find(database, name)
        return await GroupAdmin(database).remove(name, names)

    gone, jobs = with_database(config, work)
    back = f"; {count(jobs, 'job')} went back to its pool" if jobs else ""
    say(f"took {count(len(gone), 'device')} out of group {name}{back}")
    rest = [one for one in names if one not in gone]
    if rest:
        say(f"not in it: {', '.join(rest)}")


@group_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@database_config_option
def list_(*, as_json: bool, config: Config) -> None:
    """List the groups."""
    groups = with_database(config, lambda database: GroupAdmin(database).all())
    if as_json:
        print_json([group_json(group) for group in groups])
    else:
        show_groups(groups)


@group_group.command("show")
@_group
@click.option("--json", "as_json", is_flag=True, help="For programs; times in ISO 8601.")
@database_config_option
def show(group: str, *, as_json: bool, config: Config) -> None:
    """Show one group: its devices and their states, its pool, and how many recipients know each device."""
    (name,) = short_names([group], "group")

    async def work(database: Database) -> tuple[GroupRow, list[Member]]:
        return await _find(database, name), await GroupAdmin(database).members(name)

    found, members = with_database(config, work)
    if as_json:
        print_json(whole_group_json(found, members))
    else:
        show_group(found, members)


@group_group.command("delete")
@_group
@database_config_option
def delete(group: str, config: Config) -> None:
    """Delete a group that no waiting job names. Its devices stay; which of them a recipient knows is forgotten."""
    (name,) = short_names([group], "group")

    async def work(database: Database) -> None:
        found = await _find(database, name)
        if await GroupAdmin(database).delete(name):
            return
        raise UsageError(
            f"group {name} is not deleted, because {count(found.pooled + found.given, 'live job')} "
            f"{'names' if found.pooled + found.given == 1 else 'name'} it: wait for their end, or cancel them (shardd job cancel)"
        )

    with_database(config, work)
    say(f"deleted group {name}")


async def _find(database: Database, name: str) -> GroupRow:
    found = await GroupAdmin(database).find(name)
    if found is None:
        raise UsageError(f"group {name} is unknown; the others: shardd group list")
    return found
