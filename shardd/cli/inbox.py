"""`shardd inbox`: what people wrote to devices."""

from __future__ import annotations

from typing import Final

import click

from shardd.cli.completion import complete_devices
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import WIDE, Column, Listing
from shardd.cli.names import job_ids
from shardd.cli.opt_out.recipients import spelling_of
from shardd.cli.options import database_config_option, json_list_option, json_option, limit_option
from shardd.cli.output import Facts, Lines, make_console, make_facts, print_json
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin
from shardd.queue.inbox import InboxAdmin, InboxMessage
from shardd.queue.unknown_device import unknown_device
from shardd.words import ago, json_text, moment_text

MESSAGES: Final = Listing[InboxMessage](
    one="message",
    none="no messages",
    columns=[
        Column("id", lambda one: str(one.id), right=True),
        Column("received", lambda one: moment_text(one.received_at), whole=True, at_least=WIDE),
        Column("received", lambda one: ago(one.received_at), whole=True, below=WIDE),
        Column("device", lambda one: one.device_id),
        Column("from", lambda one: one.sender),
        Column("name", lambda one: one.name or "", at_least=WIDE),
        Column("job", lambda one: "" if one.job_id is None else str(one.job_id), right=True),
        Column("message", lambda one: one.summary),
    ],
)


@click.group("inbox", epilog=examples("shardd inbox list"))
def inbox_group() -> None:
    """List and show what people wrote to devices."""


@inbox_group.command("list", epilog=examples("shardd inbox list --device=berlin-1", "shardd inbox list --job=4711"))
@click.option(
    "--device", "device_id", metavar="ID", shell_complete=complete_devices, help="Only messages to this device."
)
@click.option(
    "--from", "sender", metavar="NUMBER", help="Only messages of this sender: a number in any spelling, or ID@lid."
)
@click.option("--job", "job", metavar="ID", help="Only answers to the message of this job.")
@limit_option
@json_list_option
@database_config_option
def list_(
    *, device_id: str | None, sender: str | None, job: str | None, limit: int, as_json: bool, config: Config
) -> None:
    """List incoming messages, newest first."""
    job_id = None if job is None else job_ids([job])[0]
    address = None if sender is None else spelling_of(config).person(sender)

    async def find(database: Database) -> list[InboxMessage]:
        found = await InboxAdmin(database).newest(limit, device_id=device_id, address=address, job_id=job_id)
        if not found and device_id is not None and not await DeviceAdmin(database).was_there(device_id):
            raise await unknown_device(database, device_id)
        return found

    MESSAGES.show(with_database(config, find), as_json=as_json, limit=limit)


@inbox_group.command("show", epilog=examples("shardd inbox show 4711"))
@click.argument("message_id", metavar="ID")
@json_option()
@database_config_option
def show(message_id: str, as_json: bool, config: Config) -> None:
    """Show one incoming message."""
    if not message_id.isascii() or not message_id.isdecimal() or len(message_id) > 18:
        raise UsageError(f"{message_id} is not the id of a message: write a number that shardd inbox list shows")
    message = with_database(config, lambda database: InboxAdmin(database).show(int(message_id)))
    if message is None:
        raise UsageError(f"message {message_id} is unknown, or was deleted after inbox.keep")
    if as_json:
        print_json(message)
    else:
        make_console().print(make_facts(_facts(message)))


def _facts(message: InboxMessage) -> Facts:
    return [
        ("message", str(message.id)),
        ("device", message.device_id),
        ("from", message.sender),
        ("number", message.number),
        ("lid", message.lid),
        ("name", message.name),
        ("chat", message.chat),
        ("note", message.note),
        ("written", moment_text(message.written_at)),
        ("received", moment_text(message.received_at)),
        ("opt-out", "yes" if message.opt_out else ""),
        ("kind", message.kind),
        ("choice", message.choice),
        ("answers", message.quoted_id),
        ("which is job", "" if message.job_id is None else str(message.job_id)),
        ("media", message.media),
        ("file", message.file),
        ("on node", message.media_node),
        ("details", json_text(message.details)),
        ("message id", message.message_id),
        ("text", Lines(message.text)),
    ]
