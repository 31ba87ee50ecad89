"""`shardd webhook`: how far the webhooks of the config file are, and what their receivers rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import click

from shardd.cli.acts import acts, change
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import Column, Listing
from shardd.cli.names import unknown
from shardd.cli.options import config_option, database_config_option, json_list_option, make_limit_option
from shardd.cli.output import Text, make_console, number_text, say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.webhooks import (
    FAILURES_KEPT,
    NOT_CONFIGURED,
    FailureRow,
    WebhookAdmin,
    WebhookRow,
    state_of,
    webhook_json,
)
from shardd.words import ago, count

_STYLES: Final = {"failing": "red", "disabled": "bold red", "delivering": "green"}


@dataclass(frozen=True, slots=True)
class _Webhook:
    """A webhook of the config, the database, or both; `row` None: no daemon has read this config yet."""

    name: str
    state: str
    row: WebhookRow | None

    def cell(self, name: str, style: str = "") -> Text:
        """A number of its row."""
        return Text() if self.row is None else number_text(getattr(self.row, name), style)

    def behind(self) -> Text | str:
        return self.row.behind_words if self.row is not None and self.row.more_behind else self.cell("behind")

    def error(self) -> str:
        if self.row is None or not self.row.error:
            return ""
        tries = self.row.next_at is not None and self.state != NOT_CONFIGURED
        return self.row.error + (f"; next try {ago(self.row.next_at)}" if tries else "")

    def as_json(self) -> dict[str, Any]:
        return webhook_json(self.name, self.state, self.row)


WEBHOOKS: Final = Listing[_Webhook](
    one="webhook",
    none="no webhooks: define them in the config file, below `webhooks:`",
    columns=[
        Column("name", lambda one: one.name),
        Column("state", lambda one: Text(one.state, _STYLES.get(one.state, "yellow")), whole=True),
        Column("behind", _Webhook.behind, right=True),
        Column("delivered", lambda one: one.cell("delivered"), right=True),
        Column("set aside", lambda one: one.cell("set_aside"), right=True),
        Column("missed", lambda one: one.cell("missed", "red"), right=True),
        Column("last", lambda one: "" if one.row is None else ago(one.row.delivered_at), whole=True),
        Column("error", _Webhook.error),
    ],
)
FAILURES: Final = Listing[FailureRow](
    one="event",
    none="no event was set aside",
    columns=[
        Column("event", lambda one: one.event_id),
        Column("kind", lambda one: one.kind, whole=True),
        Column("happened", lambda one: ago(one.at), whole=True),
        Column("set aside", lambda one: ago(one.given_up_at), whole=True),
        Column("tries", lambda one: str(one.tries), right=True),
        Column("error", lambda one: one.error + (" (is sent again)" if one.again else "")),
    ],
)


@click.group("webhook", epilog=examples("shardd webhook list"))
def webhook_group() -> None:
    """List webhooks, and retry failed events.

    Webhooks are defined in the config file.
    """


@webhook_group.command("list", epilog=examples("shardd webhook list"))
@json_list_option
@config_option
def list_(as_json: bool, config: Config) -> None:
    """List webhooks, their state and last error.

    `behind` is the number of events that wait for a webhook, with a + if it may be more; `set aside` that of events that its
    receiver rejected for good.
    """
    found = with_database(config, lambda database: WebhookAdmin(database).all())
    rows = {row.name: row for row in found}
    names = sorted(rows.keys() | config.webhooks.keys())
    webhooks = [
        _Webhook(name, state_of(rows.get(name), configured=name in config.webhooks), rows.get(name)) for name in names
    ]
    WEBHOOKS.show(webhooks, as_json=as_json, plain=_Webhook.as_json, counted=False)
    if not as_json and any(row.set_aside for row in found):
        words = "events that were set aside: shardd webhook failed NAME; send them again: shardd webhook retry NAME"
        make_console().print(Text(words, "dim"))


@webhook_group.command("failed", epilog=examples("shardd webhook failed crm"))
@click.argument("name")
@make_limit_option(FAILURES_KEPT)
@json_list_option
@database_config_option
def failed(name: str, limit: int, as_json: bool, config: Config) -> None:
    """List events that were set aside, newest first.

    The receiver of the webhook rejected them.
    """

    async def find(database: Database) -> list[FailureRow]:
        admin = WebhookAdmin(database)
        found = await admin.failures(name, limit)
        if not found and name not in {row.name for row in await admin.all(1)}:
            raise unknown("webhook", name)
        return found

    FAILURES.show(with_database(config, find), as_json=as_json, counted=False)


@webhook_group.command("retry", epilog=examples("shardd webhook retry crm"))
@click.argument("name")
@database_config_option
@acts("retry")
def retry(name: str, config: Config) -> None:
    """Retry a failing or disabled webhook now.

    Events that were set aside are sent once more.
    """
    again = change(
        config,
        "webhook",
        lambda database: WebhookAdmin(database).ask_retry(name),
        changed=lambda again: [] if again is None else [name],
    )
    if again is None:
        if name in config.webhooks:
            raise UsageError(f"webhook {name} has not begun yet: the running shardd has not read this config")
        raise unknown("webhook", name)
    say(f"webhook {name} is tried at once" + (f"; sent once more: {count(again, 'event')}" if again else ""))
