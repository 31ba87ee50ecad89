"""`shardd webhook`: which programs are told what happens, how far each is, and what one would not take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import click

from shardd.cli.database import with_database
from shardd.cli.options import WholeNumber, config_option, database_config_option
from shardd.cli.output import Text, ago, count, make_console, make_table, print_json, say
from shardd.config import Config, WebhookConfig
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.webhooks import FAILURES_KEPT, FailureRow, WebhookAdmin, WebhookRow

COUNT_MOST: Final = 100_000
"""Waiting events that are counted one by one."""
_STYLES: Final = {"failing": "red", "disabled": "bold red", "delivering": "green"}


@click.group("webhook")
def webhook_group() -> None:
    """See how far webhooks are, and send again what a receiver did not take. They stand in the config file."""


@webhook_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@config_option
def list_(as_json: bool, config: Config) -> None:
    """List webhooks: how each is, how many events wait for it, and what its receiver said last."""

    async def find(database: Database) -> list[WebhookRow]:
        return await WebhookAdmin(database).all(COUNT_MOST + 1)

    rows = {row.name: row for row in with_database(config, find)}
    names = sorted(rows.keys() | config.webhooks.keys())
    if as_json:
        print_json([_json(name, rows.get(name), config.webhooks) for name in names])
    else:
        _show(names, rows, config.webhooks)


@webhook_group.command("failed")
@click.argument("name")
@click.option("--limit", type=WholeNumber(1, FAILURES_KEPT), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@database_config_option
def failed(name: str, limit: int, as_json: bool, config: Config) -> None:
    """List the events of a webhook that were set aside, newest first: its receiver would not take them."""

    async def find(database: Database) -> list[FailureRow]:
        admin = WebhookAdmin(database)
        found = await admin.failures(name, limit)
        if not found and name not in {row.name for row in await admin.all(1)}:
            raise _unknown(name)
        return found

    found = with_database(config, find)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    console = make_console()
    if not found:
        console.print("none was set aside")
        return
    table = make_table(
        "event",
        "kind",
        "happened",
        "set aside",
        "tries",
        "error",
        right=("event", "tries"),
        whole=("kind", "happened", "set aside"),
    )
    for one in found:
        again = " (is sent again)" if one.again else ""
        row = (str(one.event_id), one.kind, ago(one.at), ago(one.given_up_at), str(one.tries), one.error + again)
        table.add_row(*map(Text, row))
    console.print(table)


@webhook_group.command("retry")
@click.argument("name")
@database_config_option
def retry(name: str, config: Config) -> None:
    """Try a webhook at once that fails or is disabled, and send once more what was set aside."""

    async def ask(database: Database) -> int | None:
        return await WebhookAdmin(database).ask_retry(name)

    again = with_database(config, ask)
    if again is None:
        if name in config.webhooks:
            raise UsageError(f"webhook {name} has not begun yet: the running shardd has not read this config")
        raise _unknown(name)
    say(f"webhook {name} is tried at once" + (f"; sent once more: {count(again, 'event')}" if again else ""))


def _unknown(name: str) -> UsageError:
    return UsageError(f"webhook {name} is unknown; the others: shardd webhook list")


def webhook_state(name: str, row: WebhookRow | None, configs: Mapping[str, WebhookConfig]) -> str:
    """In one word, or a few."""
    if name not in configs:
        return "not configured"
    if row is None:
        return "not begun"
    if row.disabled_at is not None:
        return "disabled"
    if row.node is None:
        return "stopped"
    return "failing" if row.failing_since is not None else "delivering"


def _json(name: str, row: WebhookRow | None, configs: Mapping[str, WebhookConfig]) -> dict[str, Any]:
    state = {"name": name, "state": webhook_state(name, row, configs)}
    return state if row is None else {**asdict(row), **state}


def _show(names: list[str], rows: Mapping[str, WebhookRow], configs: Mapping[str, WebhookConfig]) -> None:
    console = make_console()
    if not names:
        console.print("no webhooks: they stand in the config file, below `webhooks:`")
        return
    headers = ("name", "state", "behind", "delivered", "set aside", "missed", "last", "error")
    table = make_table(*headers, right=("behind", "delivered", "set aside", "missed"), whole=("state", "last"))
    for name in names:
        row, state = rows.get(name), webhook_state(name, rows.get(name), configs)
        cells = [Text(name), Text(state, _STYLES.get(state, "yellow"))]
        if row is not None:
            behind = f"{COUNT_MOST:,}+" if row.behind > COUNT_MOST else f"{row.behind:,}"
            next_try = f"; next try {ago(row.next_at)}" if row.next_at is not None else ""
            cells += [Text(behind), Text(f"{row.delivered:,}"), Text(f"{row.set_aside:,}")]
            cells += [Text(f"{row.missed:,}", "red" if row.missed else ""), Text(ago(row.delivered_at))]
            cells.append(Text(f"{row.error}{next_try}" if row.error else ""))
        table.add_row(*cells)
    console.print(table)
    if any(row.set_aside for row in rows.values()):
        console.print(
            Text("what was set aside: shardd webhook failed NAME; once more: shardd webhook retry NAME", "dim")
        )
