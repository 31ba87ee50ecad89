"""`shardd dashboard`: the web page of the running shardd, and who may use it."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC
from typing import Final

import click

from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import AIRY, WIDE, Column, Listing
from shardd.cli.options import config_option, database_config_option, json_list_option, json_option, limit_option
from shardd.cli.output import print_json, say
from shardd.config import Config
from shardd.control_client import ask_now
from shardd.errors import UsageError
from shardd.queue.acts import Act, ActFilter, Acts

ACTS: Final = Listing[Act](
    one="act",
    none="no acts",
    columns=[
        Column("at", lambda act: format(act.at.astimezone(UTC), "%Y-%m-%d %H:%M:%S"), whole=True),
        Column("who", lambda act: act.who or "nobody known", whole=True),
        Column("how", lambda act: act.how, at_least=AIRY),
        Column("from", lambda act: act.address, at_least=WIDE),
        Column("act", lambda act: act.act, whole=True),
        Column("target", lambda act: act.target, whole=True),
        Column("detail", lambda act: act.detail),
        Column("result", lambda act: act.shown_result),
        Column("node", lambda act: act.node, at_least=AIRY),
    ],
)


@click.group("dashboard", epilog=examples("shardd dashboard link", "shardd dashboard acts --limit=10"))
def dashboard_group() -> None:
    """Sign in to the web page, and see what was done there."""


@dashboard_group.command("link", epilog=examples("shardd dashboard link"))
@json_option("Print an object with url, for programs.")
@config_option
def link(*, as_json: bool, config: Config) -> None:
    """Print a link that signs one person in, once, within five minutes.

    Whoever may use the control socket may do this.
    """
    made = ask_now(config.control_socket, "POST", "/dashboard/links")
    if as_json:
        print_json(made)
    else:
        say(made["url"])


@dashboard_group.command(
    "password", epilog=examples("shardd dashboard password", "shardd dashboard password < password.txt")
)
def password() -> None:
    """Print the hash of a password, for dashboard.users.

    Asks for the password twice; without a terminal, it is the first line of stdin.
    """
    from shardd.dashboard.passwords import LONGEST, SHORTEST, make_hash  # noqa: PLC0415  # loads argon2, and no other command does

    if sys.stdin.isatty():
        chosen = getpass.getpass("Password: ")
        if getpass.getpass("The same again: ") != chosen:
            raise UsageError("the two passwords differ: try again")
    else:
        chosen = sys.stdin.readline().rstrip("\r\n")
    if not SHORTEST <= len(chosen) <= LONGEST:
        raise UsageError(
            f"the password has {len(chosen)} characters: choose one of {SHORTEST} to {LONGEST}, such as four words"
        )
    say(make_hash(chosen))


@dashboard_group.command(
    "acts", epilog=examples("shardd dashboard acts --limit=10", "shardd dashboard acts --act=pause --target=d1")
)
@click.option("--who", metavar="NAME", help="Only what this user, token or account did.")
@click.option("--act", metavar="WORD", help="Only what is called this, such as pause.")
@click.option(
    "--target", metavar="THING", help="Only what was done to this: 'device d1', or d1, also as one of several."
)
@limit_option
@json_list_option
@database_config_option
def acts(*, who: str | None, act: str | None, target: str | None, limit: int, as_json: bool, config: Config) -> None:
    """List who did what, by the web page, the API and commands, newest first."""
    wanted = ActFilter(who, act, target)
    found = with_database(config, lambda database: Acts(database).newest(limit, wanted))
    ACTS.show(found.acts, as_json=as_json, limit=limit)
