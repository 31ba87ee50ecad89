"""`shardd producer`: which programs may insert what.

A program is known by the role of PostgreSQL that it logs in as. The commands talk to the database, so they work whether shardd
runs or not.
"""

from __future__ import annotations

from typing import Final

import click

from shardd.cli.database import with_database
from shardd.cli.names import Refusals, short_names, some
from shardd.cli.options import database_config_option
from shardd.cli.output import count, print_json, say
from shardd.cli.producer.view import producer_json, rights_text, show_producer, show_producers, whole_producer_json
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.producers import Bindings, Bound, ProducerAdmin, ProducerRow, Role

LONGEST_ROLE: Final = 63
"""Bytes of a role's name in PostgreSQL."""
_KINDS: Final = {"device": "shardd device list", "group": "shardd group list", "campaign": "shardd campaign list"}

_role = click.argument("role", metavar="ROLE")
_device = click.option("--device", "devices", multiple=True, metavar="ID", help="A device; - for ids on stdin.")
_group = click.option("--group", "groups", multiple=True, metavar="ID", help="A device group; - for ids on stdin.")
_campaign = click.option("--campaign", "campaigns", multiple=True, metavar="ID", help="A campaign; - for ids on stdin.")


@click.group("producer")
def producer_group() -> None:
    """Bind the roles of programs to devices, device groups and campaigns, look at what is bound, and take it away.

    A role that is bound inserts only for these, and sees only what is theirs. A role that is not bound is free.
    """


@producer_group.command("add")
@_role
@_device
@_group
@_campaign
@database_config_option
def add(
    role: str, devices: tuple[str, ...], groups: tuple[str, ...], campaigns: tuple[str, ...], config: Config
) -> None:
    """Bind an existing role, or bind more to one that is bound.

    A role that is bound to campaigns alone sends through any device; one that is bound to a device or a group, through these.
    """
    bindings = _bindings(devices, groups, campaigns)
    if not bindings:
        raise UsageError("nothing is named to bind: add --device, --group or --campaign, once for each")

    async def work(database: Database) -> tuple[Bound, ProducerRow | None]:
        admin = ProducerAdmin(database)
        found = await _find_role(admin, config, role)
        bound = await admin.bind(role, bindings, is_group=not found.can_login)
        if bound.unknown:
            return bound, None
        await _tell_notes(admin, role, found)
        return bound, (await admin.of(role))[0]

    bound, row = with_database(config, work)
    if row is None:
        refusals = Refusals()
        for kind, where in _KINDS.items():
            names = [name for of_kind, name in bound.unknown if of_kind == kind]
            refusals.tell(names, kind, f"unknown, so nothing was bound; those that there are: {where}")
        refusals.finish()
        return
    what = _counted(bound.devices, bound.groups, bound.campaigns)
    say(f"bound {role} to {what}" if what else f"{role} is bound to all of it")
    say(f"{role} {rights_text(row)}")


@producer_group.command("remove")
@_role
@_device
@_group
@_campaign
@database_config_option
def remove(
    role: str, devices: tuple[str, ...], groups: tuple[str, ...], campaigns: tuple[str, ...], config: Config
) -> None:
    """Take what is named from a role. Without a name: free the role, which then may insert everything again."""
    bindings = _bindings(devices, groups, campaigns)

    async def work(database: Database) -> None:
        admin = ProducerAdmin(database)
        if not any(row.role == role for row in await admin.of(role)):
            raise UsageError(f"role {role} is not bound; those that are: shardd producer list")
        if not bindings:
            await admin.free(role)
            _tell_freed(role, await admin.of(role))
            return
        gone = await admin.unbind(role, bindings)
        counts = [sum(kind == one for kind, _ in gone) for one in _KINDS]
        say(f"took {_counted(*counts) or 'nothing'} from {role}")
        named = {"device": bindings.devices, "group": bindings.groups, "campaign": bindings.campaigns}
        rest = [name for kind, names in named.items() for name in names if (kind, name) not in gone]
        if rest:
            say(f"not bound to it: {some(rest)}")
        say(f"{role} {rights_text((await admin.of(role))[0])}")

    with_database(config, work)


@producer_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@database_config_option
def list_(*, as_json: bool, config: Config) -> None:
    """List the roles that are bound."""
    rows = with_database(config, lambda database: ProducerAdmin(database).all())
    if as_json:
        print_json([producer_json(row) for row in rows])
    else:
        show_producers(rows)


@producer_group.command("show")
@_role
@click.option("--json", "as_json", is_flag=True, help="For programs; times in ISO 8601.")
@database_config_option
def show(role: str, *, as_json: bool, config: Config) -> None:
    """Show what is bound to one role, by itself and as a member of others."""

    async def work(database: Database) -> list[ProducerRow]:
        admin = ProducerAdmin(database)
        rows = await admin.of(role)
        if not rows and await admin.role(role) is None:
            raise UsageError(f"role {role} does not exist, and is not bound; those that are: shardd producer list")
        if not rows:
            raise UsageError(
                f"role {role} is not bound: it may insert everything; those that are: shardd producer list"
            )
        return rows

    rows = with_database(config, work)
    if as_json:
        print_json(whole_producer_json(role, rows))
    else:
        show_producer(role, rows)


def _bindings(devices: tuple[str, ...], groups: tuple[str, ...], campaigns: tuple[str, ...]) -> Bindings:
    return Bindings(
        short_names(devices, "device") if devices else (),
        short_names(groups, "group") if groups else (),
        short_names(campaigns, "campaign") if campaigns else (),
    )


def _counted(devices: int, groups: int, campaigns: int) -> str:
    parts = [(devices, "device"), (groups, "device group"), (campaigns, "campaign")]
    return " and ".join(count(number, one) for number, one in parts if number)


async def _find_role(admin: ProducerAdmin, config: Config, role: str) -> Role:
    """Raises UsageError for a role that cannot be bound; for one that does not exist, after the SQL that makes it."""
    if not 0 < len(role.encode()) <= LONGEST_ROLE or "\0" in role:
        raise UsageError(f"a role's name has 1 to {LONGEST_ROLE} bytes, this one {len(role.encode())}")
    found = await admin.role(role)
    if found is None and config.database is None:
        raise UsageError(
            f"role {role} does not exist, and the embedded database lets in no other than `producer`: name a server "
            "under `database: dsn:` for programs with roles of their own"
        )
    if found is None:
        say((await admin.statements(role))[0])
        raise UsageError(
            f"role {role} does not exist: let an administrator of the server run the SQL above, with a password, and then "
            "repeat this command"
        )
    if found.unbindable:
        raise UsageError(
            f"role {role} is a superuser, a member of the role that owns shardd's tables, or has BYPASSRLS: no binding "
            "would hold it. Let the program log in as a role of its own"
        )
    return found


async def _tell_notes(admin: ProducerAdmin, role: str, found: Role) -> None:
    if not found.may_insert:
        grant = (await admin.statements(role))[1]
        say(f"note: {role} may insert nothing until an administrator of the server runs: {grant}", err=True)
    if found.free_members:
        say(f"note: {some(found.free_members)} may act as {role}, and stays free: bind it, too", err=True)


def _tell_freed(role: str, others: list[ProducerRow]) -> None:
    if others:
        groups = some([row.role for row in others])
        say(f"{role} has no bindings of its own any more; as a member it is still bound by {groups}")
    else:
        say(f"{role} is free: it may insert for every device, and sees every job and event")
