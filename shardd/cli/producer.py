"""`shardd producer`: which programs, known by the PostgreSQL role that they log in as, may insert what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from shardd.cli.acts import acts, change
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import Column, Listing
from shardd.cli.names import COMPLETE, Refusals, short_names, some
from shardd.cli.options import Decorator, all_of, database_config_option, json_list_option, json_option
from shardd.cli.output import Facts, Text, make_console, make_facts, print_json, say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.producers import Bindings, Bound, Named, ProducerAdmin, ProducerRow, Role, patiently
from shardd.queue.queries import Queries
from shardd.words import count, moment_text

LONGEST_ROLE: Final = 63
"""Bytes of a role's name in PostgreSQL."""
_KINDS: Final = {"device": "shardd device list", "group": "shardd group list", "campaign": "shardd campaign list"}
_NOTHING: Final = "sends nothing: no device or group is bound to it"


def _devices_text(row: ProducerRow) -> str:
    return "any" if row.any_device else str(len(row.devices))


PRODUCERS: Final = Listing[ProducerRow](
    one="bound role",
    none="no role is bound: every producer may insert everything; bind one with: shardd producer add ROLE",
    columns=[
        Column("role", lambda row: row.role),
        Column("devices", _devices_text, right=True),
        Column("groups", lambda row: str(len(row.groups)), right=True),
        Column("campaigns", lambda row: str(len(row.campaigns)), right=True),
        Column("note", lambda row: Text(_note(row), "yellow")),
    ],
)

_role = click.argument("role", metavar="ROLE")


def _binding_option(kind: str, what: str) -> Decorator:
    return click.option(
        f"--{kind}",
        f"{kind}s",
        multiple=True,
        metavar="ID",
        help=f"{what}; - for ids on stdin.",
        shell_complete=COMPLETE.get(kind),
        callback=lambda context, _option, given: (
            short_names(given, kind) if given and not context.resilient_parsing else []
        ),
    )


_bindings = all_of(
    _binding_option("device", "A device"),
    _binding_option("group", "A device group"),
    _binding_option("campaign", "A campaign"),
)


@click.group("producer", epilog=examples("shardd producer list"))
def producer_group() -> None:
    """Bind roles to devices, groups and campaigns.

    A bound role inserts only for these, and sees only what is theirs. Any other role is free.
    """


@producer_group.command("add", epilog=examples("shardd producer add shop --device=berlin-1"))
@_role
@_bindings
@database_config_option
@acts("add")
def add(*, role: str, config: Config, **ids: list[str]) -> None:
    """Bind a role, or add to its bindings.

    Bound to campaigns alone, it sends through any device; bound to a device or a group, only through these.
    """
    bindings = Bindings(**ids)
    if not bindings:
        raise UsageError("nothing to bind: add --device, --group or --campaign, once for each")

    async def work(database: Queries) -> tuple[Bound, ProducerRow | None, list[str]]:
        admin = ProducerAdmin(database)
        found = await _find_role(admin, config, role)
        notes = await _notes(admin, role, found)
        bound = await admin.bind(role, bindings, is_group=not found.can_login)
        return bound, None if bound.unknown else (await admin.of(role))[0], notes

    bound, row, notes = change(
        config,
        "role",
        work,
        changed=lambda result: [role] if _number(result[0]) else [],
        detail=lambda _: ", ".join(f"{kind} {name}" for kind, names in _by_kind(bindings) for name in names),
        repeat=patiently,
    )
    if row is None:
        refusals = Refusals()
        for kind, where in _KINDS.items():
            names = [name for of_kind, name in bound.unknown if of_kind == kind]
            refusals.add(names, kind, f"unknown, so nothing was bound; the others: {where}")
        refusals.finish()
        return
    for note in notes:
        say(f"note: {note}", err=True)
    what = _counted(bound.devices, bound.groups, bound.campaigns)
    say(f"bound {role} to {what}" if what else f"{role} is bound to all of it already")
    say(f"{role} {_rights(row)}")


@producer_group.command(
    "remove", epilog=examples("shardd producer remove shop --device=berlin-1", "shardd producer remove shop")
)
@_role
@_bindings
@database_config_option
@acts("remove")
def remove(*, role: str, config: Config, **ids: list[str]) -> None:
    """Remove bindings of a role.

    Without --device, --group and --campaign: free the role, which may insert everything again.
    """
    bindings = Bindings(**ids)

    async def work(database: Queries) -> tuple[list[Named], list[ProducerRow]]:
        admin = ProducerAdmin(database)
        if not any(row.role == role for row in await admin.of(role)):
            raise UsageError(f"role {role} is not bound; those that are: shardd producer list")
        if not bindings:
            await admin.free(role)
            return [], await admin.of(role)
        return await admin.unbind(role, bindings), await admin.of(role)

    gone, left = change(
        config,
        "role",
        work,
        changed=lambda result: [role] if result[0] or not bindings else [],
        detail=lambda result: ", ".join(f"{kind} {name}" for kind, name in result[0]) or "all its bindings",
        repeat=patiently,
    )
    if not bindings:
        _print_freed(role, left)
        return
    counts = [sum(kind == one for kind, _ in gone) for one in _KINDS]
    say(f"took {_counted(*counts) or 'nothing'} from {role}")
    if others := [name for kind, names in _by_kind(bindings) for name in names if (kind, name) not in gone]:
        say(f"not bound to it: {some(others)}")
    say(f"{role} {_rights(left[0])}")


@producer_group.command("list", epilog=examples("shardd producer list"))
@json_list_option
@database_config_option
def list_(*, as_json: bool, config: Config) -> None:
    """List bound roles."""
    PRODUCERS.show(with_database(config, lambda database: ProducerAdmin(database).all()), as_json=as_json)


@producer_group.command("show", epilog=examples("shardd producer show shop"))
@_role
@json_option()
@database_config_option
def show(role: str, *, as_json: bool, config: Config) -> None:
    """Show the bindings of a role.

    These are its own and those of the roles that it is a member of.
    """

    async def work(database: Database) -> list[ProducerRow]:
        admin = ProducerAdmin(database)
        rows = await admin.of(role)
        if not rows:
            known = await admin.role(role) is not None
            state = "is not bound: it may insert everything" if known else "does not exist, and is not bound"
            raise UsageError(f"role {role} {state}; those that are: shardd producer list")
        return rows

    rows = with_database(config, work)
    if as_json:
        print_json({"role": role, "sets": rows})
        return
    console = make_console()
    for row in rows:
        console.print(make_facts(_facts(role, row)))
        if row is not rows[-1]:
            console.print()


def _facts(role: str, row: ProducerRow) -> Facts:
    return [
        ("role", row.role if row.role == role else f"{role}, as a member of {row.role}"),
        ("note", _note(row)),
        ("rights", _rights(row)),
        ("devices", "any" if row.any_device else ", ".join(row.devices)),
        ("groups", ", ".join(row.groups)),
        ("campaigns", ", ".join(row.campaigns)),
        ("members", ", ".join(row.members)),
        ("bound", moment_text(row.created_at)),
    ]


def _note(row: ProducerRow) -> str:
    if not row.is_there:
        return "there is no such role: was it renamed? A role of another name is free"
    if not row.held:
        return "no binding holds it: it is a superuser, a member of the owner, or has BYPASSRLS"
    if row.is_stale:
        return ("it can log in now" if row.is_group else "it cannot log in any more") + ": bind it again"
    if row.is_group:
        return f"binds its {count(len(row.members), 'member')}"
    return "" if row.may_insert else "not a member of shardd_producer"


def _rights(row: ProducerRow) -> str:
    """What a set of bindings allows; completes a sentence that begins with the role."""
    devices = [*row.devices, *(f"group {group}" for group in row.groups)]
    if row.any_device:
        return f"sends through any device, in campaign {some(row.campaigns)}" if row.campaigns else _NOTHING
    if not devices:
        return _NOTHING
    campaigns = f"in campaign {some(row.campaigns)} or none" if row.campaigns else "in no campaign"
    return f"sends through {some(devices)}, {campaigns}"


def _counted(devices: int, groups: int, campaigns: int) -> str:
    parts = [(devices, "device"), (groups, "device group"), (campaigns, "campaign")]
    return " and ".join(count(number, one) for number, one in parts if number)


async def _find_role(admin: ProducerAdmin, config: Config, role: str) -> Role:
    """Raises UsageError for a role that cannot be bound; for one that does not exist, after printing the SQL that creates it."""
    if not 0 < len(role.encode()) <= LONGEST_ROLE or "\0" in role:
        raise UsageError(f"a role's name has 1 to {LONGEST_ROLE} bytes, this one {len(role.encode())}")
    found = await admin.role(role)
    if found is None and config.database is None:
        raise UsageError(
            f"role {role} does not exist, and the embedded database has no roles of programs but `producer` and `inbox`: for "
            "others, name a server under `database: dsn:`"
        )
    if found is None:
        say((await admin.statements(role))[0])
        raise UsageError(
            f"role {role} does not exist: let an administrator of the server run the SQL above, with a password, and then "
            "repeat this command"
        )
    if found.unbindable:
        raise UsageError(
            f"role {role} is a superuser, a member of the role that owns shardd's tables, or has BYPASSRLS: bindings would not "
            "hold it. Let the program log in as a role of its own"
        )
    return found


def _by_kind(bindings: Bindings) -> list[tuple[str, Sequence[str]]]:
    return [("device", bindings.devices), ("group", bindings.groups), ("campaign", bindings.campaigns)]


def _number(bound: Bound) -> int:
    return bound.devices + bound.groups + bound.campaigns


async def _notes(admin: ProducerAdmin, role: str, found: Role) -> list[str]:
    notes = []
    if not found.may_insert:
        grant = (await admin.statements(role))[1]
        notes.append(f"{role} may insert nothing until an administrator of the server runs: {grant}")
    if found.free_members:
        notes.append(f"{some(found.free_members)} may act as {role} and is free: bind it, too")
    return notes


def _print_freed(role: str, others: list[ProducerRow]) -> None:
    if others:
        groups = some([row.role for row in others])
        say(f"{role} has no bindings of its own any more; as a member it is still bound by {groups}")
    else:
        say(f"{role} is free: it may insert for every device, and sees every job and event")
