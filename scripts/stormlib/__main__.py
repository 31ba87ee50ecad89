"""The command line of `scripts/storm`."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from stormlib.mutants import MUTANTS
from stormlib.place import Size
from stormlib.storm import Options, run
from stormlib.tables import NOT_FOUND, Result, found_in_words, show, show_mutants


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
@click.option(
    "--whatsapp",
    type=click.IntRange(0, 1000),
    default=6,
    show_default=True,
    help="WhatsApp devices, besides the sandbox's.",
)
@click.option(
    "--mutants",
    metavar="WORDS",
    is_flag=False,
    flag_value="",
    help="Instead, one storm for each safety of shardd that can be removed (whose name has WORDS): is that found, or by a test?",
)
@click.option(
    "--asynchronous",
    is_flag=True,
    help="Fail over to a standby that is behind, too: what that loses is no broken promise.",
)
@click.option("--keep", is_flag=True, help="Keep the folder with all records, even if nothing is found.")
def cli(
    *,
    seconds: float,
    seed: int | None,
    ttl: float,
    every: float,
    whatsapp: int,
    mutants: str | None,
    asynchronous: bool,
    keep: bool,
) -> None:
    """Run three nodes through a storm of faults, and compare what was asked for, recorded and delivered.

    Exits with 1 if a promise was broken; then the folder with all records remains.
    """
    options = Options(
        seed=secrets.randbelow(10**6) if seed is None else seed,
        seconds=seconds,
        every=every,
        size=Size(ttl=ttl, whatsapp_devices=whatsapp),
        asynchronous=asynchronous,
        keep=keep,
    )
    _say(f"seed {options.seed}")
    out = Console()
    out = out if out.is_terminal else Console(width=120)
    if mutants is not None:
        sys.exit(_try_mutants(options, mutants, out))
    result = asyncio.run(_until_signal(run(options, _say)))
    show(result, out)
    sys.exit(1 if result.findings else 0)


def _try_mutants(options: Options, words: str, out: Console) -> int:
    """Returns the exit code: 1 if a removed safety was not found."""
    found: dict[str, str] = {}
    for mutant in (mutant for mutant in MUTANTS if words in mutant.name):
        _say(mutant.name)
        with tempfile.TemporaryDirectory(prefix="storm-mutant-") as folder:
            package = mutant.plant(Path(folder))
            result = asyncio.run(_until_signal(run(replace(options, package=package, keep=False), _say)))
            found[mutant.name] = found_in_words(Counter(finding.promise for finding in result.findings))
            if not result.findings and mutant.fails_its_test(package):
                found[mutant.name] = f"only by {mutant.test.rpartition(':')[2]}"
        out.print(f"{mutant.name}: {found[mutant.name] or NOT_FOUND}", highlight=False)
    show_mutants(found, out)
    return 0 if all(found.values()) else 1


async def _until_signal(storm: Coroutine[Any, Any, Result]) -> Result:
    """^C and SIGTERM end everything that was started."""
    task = asyncio.ensure_future(storm)
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
