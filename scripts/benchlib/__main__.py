"""The command line of `scripts/bench`: one sub-command for each thing that is measured."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchlib import queue_bench


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure shardd on this machine."""


@cli.command()
@click.option("--quick", is_flag=True, help="A look within a minute: one round of few jobs, and a smaller archive.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the tables."
)
def queue(quick: bool, json_path: str | None) -> None:
    """The queue, with devices that deliver to nobody: beside procrastinate, PgQueuer and bare SQL.

    Starts a PostgreSQL of its own, durable, in a temporary folder. Takes about ten minutes on two cores; let the machine be
    idle meanwhile.
    """
    talk = Console(stderr=True)
    results = _run(queue_bench.run(quick=quick, say=lambda text: talk.print(text, style="dim", highlight=False)))
    if json_path == "-":
        print(json.dumps(results.plain(), indent=2))
        return
    out = Console()
    # Piped into a file, a table must not be squeezed into 80 columns.
    results.show(out if out.is_terminal else Console(width=110))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(results.plain(), indent=2) + "\n")


def _run(work: Awaitable[Any]) -> Any:
    """Run to the end; ^C and SIGTERM cancel it, so that everything that was started is ended."""

    async def main() -> Any:
        task = asyncio.ensure_future(work)
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        sys.exit(130)


if __name__ == "__main__":
    cli(prog_name="scripts/bench")
