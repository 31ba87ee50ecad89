"""`shardd status`: whether the node is well, for people and for programs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from shardd.cli.client import ask
from shardd.cli.options import config_option
from shardd.cli.output import make_console, print_json
from shardd.cli.reachable import daemon_config
from shardd.cli.silent_node import explaining
from shardd.cli.status.view import render_status
from shardd.cli.status.watch import Watch, watch_status
from shardd.config import Config
from shardd.errors import SharddError, UsageError
from shardd.supervisor.status import Status

DEGRADED: Final = 1
"""Exit code when shardd answers and is not healthy."""


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs; the shape is described above.")
@click.option("--watch", is_flag=True, help="A live picture, also while shardd comes and goes; q or ^C ends it.")
def status(config_file: Path, as_json: bool, watch: bool) -> None:
    """Show the shards, the queue, and what is wrong. Exits with 0: healthy, 1: degraded, 3: not running.

    It exits with 69 when shardd runs and no command reaches it, and with 78 when the config file does not say where shardd is;
    other errors of the file are only a warning.

    With --json: an object with version, node, pid, state (starting, running, stopping), healthy, problems and notes (lists of
    sentences), problem_kinds (how many problems there are of each kind), started_at, now, database, config, shards (a list),
    totals, and queue (null until it was counted). Times are POSIX seconds, durations seconds, sizes bytes. Fields are added
    over time, never renamed.
    """
    config = daemon_config(config_file)
    if watch:
        _watch(config.control_socket, as_json=as_json)
        return
    answer = asyncio.run(_ask(config))
    node = read_status(answer)
    if as_json:
        print_json(answer)
    else:
        console = make_console()
        console.print(render_status(node, width=console.width))
    if not node.healthy:
        raise click.exceptions.Exit(DEGRADED)


async def _ask(config: Config) -> Any:
    async with explaining(config):
        return await ask(config.control_socket, "GET", "/status")


def read_status(answer: Any) -> Status:
    """The answer as data. Raises SharddError when it is one of another release."""
    try:
        return msgspec.convert(answer, Status)
    except msgspec.ValidationError as error:
        raise SharddError(
            f"the shardd that runs is of another release than this command ({error}): restart it"
        ) from None


def _watch(socket: Path, *, as_json: bool) -> None:
    console = make_console()
    if as_json or not sys.stdout.isatty() or console.is_dumb_terminal:
        raise UsageError("--watch paints a terminal; a program asks again and again with: shardd status --json")
    asyncio.run(watch_status(Watch(socket, read_status), console))
