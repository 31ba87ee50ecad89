"""`shardd dashboard`: the web page of the running shardd."""

from __future__ import annotations

import click

from shardd.cli.help import examples
from shardd.cli.options import config_option, json_option
from shardd.cli.output import print_json, say
from shardd.config import Config
from shardd.control_client import ask_now


@click.group("dashboard", epilog=examples("shardd dashboard link"))
def dashboard_group() -> None:
    """Sign in to the web page."""


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
