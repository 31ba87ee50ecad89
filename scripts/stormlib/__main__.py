"""The command line of `scripts/storm`."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys

import click
from rich.console import Console

from stormlib.place import Size
from stormlib.storm import Options, run
from stormlib.tables import Result, show


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", type=click.FloatRange(5), default=60, show_default=True, help="How long faults happen.")
@click.option("--seed", type=int, help="Chooses the faults, and what producers do.  [default: random; it is printed]")
@click.option(
    "--ttl", type=click.FloatRange(3, 60), default=6, show_default=True, help="The lease period of nodes, in seconds."
)
@click.option(
    "--every",
    type=click.FloatRange(0.01),
    default=0.1,
    show_default=True,
    help="Mean seconds between acts of a producer.",
)
@click.option("--keep", is_flag=True, help="Keep the folder with all records, even if nothing is found.")
def cli(seconds: float, seed: int | None, ttl: float, every: float, keep: bool) -> None:
    """Run three nodes through a storm of faults, and compare what was asked for, recorded and delivered.

    Exits with 1 if a promise was broken; then the folder with all records remains.
    """
    options = Options(
        seed=secrets.randbelow(10**6) if seed is None else seed,
        seconds=seconds,
        every=every,
        size=Size(ttl=ttl),
        keep=keep,
    )
    _say(f"seed {options.seed}")
    result = asyncio.run(_until_signal(options))
    out = Console()
    show(result, out if out.is_terminal else Console(width=120))
    sys.exit(1 if result.findings else 0)


async def _until_signal(options: Options) -> Result:
    """^C and SIGTERM end everything that was started."""
    task = asyncio.ensure_future(run(options, _say))
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        sys.exit(130)


def _say(text: str) -> None:
    Console(stderr=True).print(text, style="dim", highlight=False)


if __name__ == "__main__":
    cli(prog_name="scripts/storm")
