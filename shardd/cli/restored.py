"""`shardd db restored`: what may have been done that a database does not know, which `shardd db restore` has not restored.

Until a person has said so, no node claims anything (`shardd.queue.lives`).
"""

from __future__ import annotations

from typing import Final

import click

from shardd.cli.acts import acts, under_way
from shardd.cli.backup import NEW_KEYS, end_what_waited
from shardd.cli.database import command_pool, reach_dsn
from shardd.cli.help import examples
from shardd.cli.options import OneOf, database_config_option, run_async
from shardd.cli.output import say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.leases import is_any_served
from shardd.queue.lives import Lives

_ASK: Final = (
    "was anything sent or received that this database does not know? --sent-since-backup=maybe: jobs that wait are cancelled, "
    f"{NEW_KEYS}. --sent-since-backup=no: all goes on as this database knows it; only if nothing was sent since"
)


@click.command("restored", epilog=examples("shardd db restored --sent-since-backup=maybe"))
@click.option(
    "--sent-since-backup",
    "sent",
    type=OneOf(("maybe", "no")),
    help="Whether anything was sent or received that this database does not know; must be given.",
)
@database_config_option
@acts("restored")
@run_async
async def restored(sent: str | None, config: Config) -> None:
    """Go on with a database that was restored by pg_restore, from a snapshot or from archived WAL.

    shardd notices that and waits. Once for all hosts.
    """
    if sent is None:
        raise UsageError(_ASK)
    async with reach_dsn(config, make=False) as dsn, command_pool(config, dsn) as database:
        if await is_any_served(database):
            raise UsageError(_why_not((await Lives(database).last()).doubt))
        async with under_way(database, config, "the database", f"--sent-since-backup={sent}"):
            if sent == "maybe":
                await end_what_waited(config, dsn)
            await Lives(database).begin(f"restored by other means, --sent-since-backup={sent}")
    say(
        "answered; next: add the opt-outs that were made since (shardd guide backup); shardd goes on, or can be started"
    )


def _why_not(doubt: str | None) -> str:
    if doubt is None:
        return (
            "shardd sends for devices with this database, and has not found it older than it was: if it was restored all the "
            "same, stop shardd on every host first"
        )
    return (
        "a node has not given its shards back yet: repeat this in a moment; a node that died keeps them for lease.ttl"
    )
