"""`shardd group`: devices that share work.

A job that names a device group instead of a device waits in the group's pool until one of its devices is free.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import click

from shardd.cli.acts import acts, change
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import Column, Listing
from shardd.cli.names import id_argument, ids_argument, refuse, unknown, without
from shardd.cli.options import database_config_option, json_list_option, json_option
from shardd.cli.output import (
    Facts,
    Text,
    make_console,
    make_facts,
    number_text,
    print_json,
    say,
    state_text,
    transport_text,
)
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.acts import joined, listed
from shardd.queue.database import Database
from shardd.queue.groups import GroupAdmin, GroupRow, Member
from shardd.queue.queries import Queries
from shardd.words import count, moment_text

GROUPS: Final = Listing[GroupRow](
    one="device group",
    none="no device groups; make one with: shardd group add GROUP DEVICE...",
    columns=[
        Column("id", lambda group: group.id),
        Column("devices", lambda group: str(group.devices), right=True),
        Column(
            "can send", lambda group: Text(str(group.able), "yellow" if group.able < group.devices else ""), right=True
        ),
        Column("in the pool", lambda group: number_text(group.pooled, "" if group.able else "red"), right=True),
        Column("given", lambda group: number_text(group.given), right=True),
        Column("label", lambda group: group.label or ""),
    ],
)
MEMBERS: Final = Listing[Member](
    one="device",
    none="",
    transport=lambda member: member.transport,
    columns=[
        Column("device", lambda member: member.device_id),
        Column("transport", lambda member: transport_text(member.transport)),
        Column("state", lambda member: state_text(member.state), whole=True),
        Column("jobs", lambda member: number_text(member.jobs), right=True),
        Column("contacts", lambda member: number_text(member.contacts), right=True),
        Column("why", lambda member: member.why or ""),
    ],
)

_group = id_argument("group", "group", "GROUP")


@click.group("group", epilog=examples("shardd group show sales"))
def group_group() -> None:
    """Add, list, change and delete device groups.

    For DEVICE, - stands for ids on stdin, one per line.
    """


@group_group.command("add", epilog=examples("shardd group add sales berlin-1 berlin-2"))
@_group
@ids_argument("device", "devices", "DEVICE...", required=False)
@click.option("--label", help="A name for people.")
@database_config_option
@acts("add")
def add(group: str, devices: list[str], label: str | None, config: Config) -> None:
    """Make a group, or add devices to it.

    A device may be in several groups.
    """
    added = change(
        config,
        "group",
        lambda database: GroupAdmin(database).add(group, devices, label),
        changed=lambda added: [group] if added.group_is_new or added.new or label is not None else [],
        detail=lambda added: joined("" if label is None else f"label {label}", listed("device", sorted(added.new))),
    )
    if added.group_is_new:
        say(f"made group {group}" + (f" of {count(len(added.new), 'device')}" if added.new else ""))
    elif devices:
        say(f"put {count(len(added.new), 'device')} into group {group}")
    else:
        say(f"group {group} is there" + ("" if label is None else ", and has this label now"))
    refuse("device", {"unknown; add devices with: shardd device add": without(devices, added.known)})


@group_group.command("remove", epilog=examples("shardd group remove sales berlin-2"))
@_group
@ids_argument("device", "devices", "DEVICE...")
@database_config_option
@acts("remove")
def remove(group: str, devices: list[str], config: Config) -> None:
    """Take devices out of a group.

    Jobs that they were given and that no worker has in flight go back to the pool.
    """

    async def work(database: Queries) -> tuple[set[str], int]:
        await _find(database, group)
        return await GroupAdmin(database).remove(group, devices)

    gone, jobs = change(
        config,
        "group",
        work,
        changed=lambda result: [group] if result[0] else [],
        detail=lambda result: listed("device", sorted(result[0])),
    )
    back = f"; {count(jobs, 'job')} went back to its pool" if jobs else ""
    say(f"took {count(len(gone), 'device')} out of group {group}{back}")
    if others := without(devices, gone):
        say(f"not in it: {', '.join(others)}")


@group_group.command("list", epilog=examples("shardd group list"))
@json_list_option
@database_config_option
def list_(*, as_json: bool, config: Config) -> None:
    """List device groups."""
    GROUPS.show(with_database(config, lambda database: GroupAdmin(database).all()), as_json=as_json)


@group_group.command("show", epilog=examples("shardd group show sales"))
@_group
@json_option()
@database_config_option
def show(group: str, *, as_json: bool, config: Config) -> None:
    """Show a group, its pool and its devices.

    `contacts` is the number of recipients that know a device.
    """

    async def work(database: Database) -> tuple[GroupRow, list[Member]]:
        return await _find(database, group), await GroupAdmin(database).members(group)

    found, members = with_database(config, work)
    if as_json:
        print_json({**asdict(found), "members": members})
        return
    console = make_console()
    console.print(make_facts(_facts(found)))
    if members:
        console.print()
        MEMBERS.show(members, counted=False)


def _facts(group: GroupRow) -> Facts:
    stuck = group.pooled and not group.able
    pool = f"{count(group.pooled, 'job')} without a device yet{': none of its devices can send' if stuck else ''}"
    return [
        ("group", group.id),
        ("label", group.label),
        ("devices", f"{group.able} of {group.devices} can send"),
        ("pool", Text(pool, "red" if stuck else "")),
        ("given", f"{count(group.given, 'live job')} to its devices"),
        ("added", moment_text(group.created_at)),
    ]


@group_group.command("delete", epilog=examples("shardd group delete sales"))
@_group
@database_config_option
@acts("delete")
def delete(group: str, config: Config) -> None:
    """Delete a group that no waiting job names.

    Its devices stay. Which of them a recipient knows is forgotten.
    """

    async def work(database: Queries) -> None:
        found = await _find(database, group)
        if not await GroupAdmin(database).delete(group):
            jobs = found.pooled + found.given
            raise UsageError(
                f"group {group} is not deleted, because {count(jobs, 'live job')} {'names' if jobs == 1 else 'name'} it: "
                "wait until they end, or cancel them (shardd job cancel)"
            )

    change(config, "group", work, changed=lambda _: [group])
    say(f"deleted group {group}")


async def _find(database: Queries, name: str) -> GroupRow:
    found = await GroupAdmin(database).find(name)
    if found is None:
        raise unknown("group", name)
    return found
