"""The command line of `scripts/bench`: one sub-command for each thing that is measured."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console

from benchlib import bound_inserts, finished_rows, queue_bench, whatsapp_bench
from benchlib import soak as soak_bench


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
    _report(_run(queue_bench.run(quick=quick, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="A look within a minute: fewer finished rows and rounds.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def finished(quick: bool, json_path: str | None) -> None:
    """Where finished jobs go: what claiming, settling and forgetting cost with each of three ways.

    Starts a PostgreSQL of its own, durable, in a temporary folder. Takes about ten minutes on two cores.
    """
    _report(_run(finished_rows.run(quick=quick, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="A look within a minute: fewer rounds.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def producers(quick: bool, json_path: str | None) -> None:
    """Rights by device: what an INSERT costs a login that is bound, one that is not, and everybody while none is.

    Starts a PostgreSQL of its own, durable, in a temporary folder. Takes about two minutes on two cores.
    """
    _report(_run(bound_inserts.run(quick=quick, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="A look within two minutes: one round of few devices, and a smaller sweep.")
@click.option("--devices", type=click.IntRange(1, 50_000), help="Devices of the sweep.  [default: 3000; quick: 300]")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the tables."
)
def whatsapp(quick: bool, devices: int | None, json_path: str | None) -> None:
    """WhatsApp devices, beside plain neonize: CPU, memory, threads, connections; and a sweep of thousands, all cold.

    Talks to the project's own WhatsApp server on loopback only. Starts it and a PostgreSQL in a temporary folder, and a
    PgBouncer where there is one. Takes about fifteen minutes on two cores; let the machine be idle meanwhile.
    """
    devices = devices or (300 if quick else 3000)
    _report(_run(whatsapp_bench.run(quick=quick, devices=devices, say=_say)), json_path)


@cli.command()
@click.option("--refreshes", type=click.IntRange(1), default=5000, show_default=True, help="How many.")
@click.option(
    "--recycle", type=click.IntRange(1), default=1000, show_default=True, help="Replace a worker after so many of them."
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def soak(refreshes: int, recycle: int, json_path: str | None) -> None:
    """Thousands of refreshes: whether memory and files of the workers stay flat, and what each refresh leaks.

    Talks to the project's own WhatsApp server on loopback only. Takes some minutes; much longer without a PgBouncer.
    """
    _report(_run(soak_bench.run(refreshes=refreshes, recycle=recycle, say=_say)), json_path)


class _Results(Protocol):
    def plain(self) -> dict[str, Any]: ...
    def show(self, console: Console) -> None: ...


def _say(text: str) -> None:
    Console(stderr=True).print(text, style="dim", highlight=False)


def _report(results: _Results, json_path: str | None) -> None:
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
