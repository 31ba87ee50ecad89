"""The bindings of producers as people and programs see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from shardd.cli.names import some
from shardd.cli.output import Text, count, make_console, make_facts, make_table, moment_text
from shardd.queue.producers import ProducerRow


def producer_json(row: ProducerRow) -> dict[str, Any]:
    """What `--json` prints of a bound role."""
    return dataclasses.asdict(row)


def whole_producer_json(role: str, rows: Sequence[ProducerRow]) -> dict[str, Any]:
    """What `--json` prints of one role: the sets of bindings that hold it, its own first."""
    return {"role": role, "sets": [producer_json(row) for row in rows]}


def rights_text(row: ProducerRow) -> str:
    """What a set of bindings allows, as the rest of a sentence that begins with the role."""
    devices = [*row.devices, *(f"group {group}" for group in row.groups)]
    if row.any_device:
        return f"sends through any device, in campaign {some(row.campaigns)}" if row.campaigns else _NOTHING
    if not devices:
        return _NOTHING
    campaigns = f"in campaign {some(row.campaigns)} or none" if row.campaigns else "in no campaign"
    return f"sends through {some(devices)}, {campaigns}"


def show_producers(rows: Sequence[ProducerRow]) -> None:
    """A table."""
    console = make_console()
    if not rows:
        console.print("no role is bound: every producer may insert everything; bind one with: shardd producer add ROLE")
        return
    table = make_table("role", "devices", "groups", "campaigns", "note", right=("devices", "groups", "campaigns"))
    for row in rows:
        devices = Text("any" if row.any_device else str(len(row.devices)))
        counts = [Text(str(len(row.groups))), Text(str(len(row.campaigns)))]
        table.add_row(Text(row.role), devices, *counts, Text(_note(row), "yellow"))
    console.print(table)
    console.print(Text(count(len(rows), "bound role"), "dim"))


def show_producer(role: str, rows: Sequence[ProducerRow]) -> None:
    """What holds one role, set by set."""
    console = make_console()
    for row in rows:
        facts = [
            ("role", row.role if row.role == role else f"{role}, as a member of {row.role}"),
            ("note", _note(row)),
            ("rights", rights_text(row)),
            ("devices", "any" if row.any_device else ", ".join(row.devices)),
            ("groups", ", ".join(row.groups)),
            ("campaigns", ", ".join(row.campaigns)),
            ("members", ", ".join(row.members)),
            ("bound", moment_text(row.created_at)),
        ]
        console.print(make_facts(facts))
        if row is not rows[-1]:
            console.print()


_NOTHING = "sends nothing: nothing is bound to it that it could send through"


def _note(row: ProducerRow) -> str:
    if not row.is_there:
        return "there is no such role: was it renamed? Whoever has another name is free"
    if not row.held:
        return "no binding holds it: a superuser, a member of the owner, or BYPASSRLS"
    if row.is_stale:
        return ("it can log in now" if row.is_group else "it cannot log in any more") + ": bind it again"
    if row.is_group:
        return f"binds its {count(len(row.members), 'member')}"
    if not row.may_insert:
        return "not a member of shardd_producer"
    return ""
