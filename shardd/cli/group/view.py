"""Device groups as people and programs see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from shardd.cli.output import (
    SANDBOX,
    SANDBOX_STYLE,
    Text,
    count,
    make_console,
    make_facts,
    make_table,
    moment_text,
    sandbox_line,
    state_text,
)
from shardd.queue.groups import GroupRow, Member


def group_json(group: GroupRow) -> dict[str, Any]:
    """What `--json` prints of a group in a list."""
    return dataclasses.asdict(group)


def whole_group_json(group: GroupRow, members: Sequence[Member]) -> dict[str, Any]:
    """What `--json` prints of one group."""
    return group_json(group) | {"members": [dataclasses.asdict(member) for member in members]}


def show_groups(groups: Sequence[GroupRow]) -> None:
    """A table."""
    console = make_console()
    if not groups:
        console.print("no device groups; make one with: shardd group add GROUP DEVICE...")
        return
    table = make_table(
        *("id", "devices", "can send", "in the pool", "given", "label"),
        right=("devices", "can send", "in the pool", "given"),
    )
    for group in groups:
        able = Text(str(group.able), "yellow" if group.able < group.devices else "")
        jobs = [Text(f"{group.pooled:,}", "red" if group.pooled and not group.able else ""), Text(f"{group.given:,}")]
        table.add_row(Text(group.id), Text(str(group.devices)), able, *jobs, Text(group.label or ""))
    console.print(table)
    console.print(Text(count(len(groups), "device group"), "dim"))


def show_group(group: GroupRow, members: Sequence[Member]) -> None:
    """One group, line by line, and its devices."""
    console = make_console()
    rows: list[tuple[str, Text | str]] = [
        ("group", group.id),
        ("label", group.label or ""),
        ("devices", f"{group.able} of {group.devices} can send"),
        ("pool", _pool(group)),
        ("given", f"{count(group.given, 'live job')} to its devices"),
        ("added", moment_text(group.created_at)),
    ]
    console.print(make_facts(rows))
    if not members:
        return
    devices = make_table(
        "device", "transport", "state", "jobs", "contacts", "why", right=("jobs", "contacts"), whole=("state",)
    )
    for member in members:
        devices.add_row(
            Text(member.device_id),
            Text(member.transport, SANDBOX_STYLE if member.transport == SANDBOX else ""),
            state_text(member.state),
            Text(f"{member.jobs:,}"),
            Text(f"{member.contacts:,}"),
            Text(member.why or ""),
        )
    console.print()
    console.print(devices)
    sandbox = sum(member.transport == SANDBOX for member in members)
    if sandbox:
        console.print(Text(sandbox_line(sandbox, len(members), "devices"), SANDBOX_STYLE))


def _pool(group: GroupRow) -> Text:
    words = f"{count(group.pooled, 'job')} without a device yet"
    if group.pooled and not group.able:
        return Text(f"{words}: none of its devices can send", "red")
    return Text(words)
