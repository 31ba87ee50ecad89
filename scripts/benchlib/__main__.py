"""The command line of `scripts/bench`: one subcommand per benchmark."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console

from benchlib import (
    bound_inserts,
    campaign_bench,
    dashboard_bench,
    failover_bench,
    finished_rows,
    groups_bench,
    growth_bench,
    queue_bench,
    scan_bench,
    visits_bench,
    whatsapp_bench,
)
from benchlib import soak as soak_bench


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure shardd on this machine."""


@cli.command()
@click.option("--quick", is_flag=True, help="Take one minute: one round of few jobs, and a smaller archive.")
@click.option(
    "--finished",
    type=click.IntRange(min=20_000),
    help="Finished rows beside which jobs are claimed and settled, at 600 MB for each million.  "
    "[default: 2000000; with --quick 100000]",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the tables."
)
def queue(quick: bool, finished: int | None, json_path: str | None) -> None:
    """The queue with sandbox devices, compared with procrastinate, PgQueuer and bare SQL.

    Starts its own durable PostgreSQL in a temporary folder. Takes about ten minutes on two cores, which should be idle
    otherwise.
    """
    _report(_run(queue_bench.run(quick=quick, finished=finished, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="Take one minute: fewer finished rows and rounds.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def finished(quick: bool, json_path: str | None) -> None:
    """Three ways to keep finished jobs: the cost of claiming, settling and deleting.

    Starts its own durable PostgreSQL in a temporary folder. Takes about ten minutes on two cores.
    """
    _report(_run(finished_rows.run(quick=quick, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="Take one minute: fewer rounds.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def producers(quick: bool, json_path: str | None) -> None:
    """Bound producers: the cost of an INSERT for a bound login, for an unbound one, and while no login is bound.

    Starts its own durable PostgreSQL in a temporary folder. Takes about two minutes on two cores.
    """
    _report(_run(bound_inserts.run(quick=quick, say=_say)), json_path)


@cli.command()
@click.option(
    "--jobs",
    type=click.IntRange(100_000, 100_000_000),
    default=300_000,
    show_default=True,
    help="Live jobs in all lanes.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Measurements of each cost.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def scan(jobs: int, rounds: int, json_path: str | None) -> None:
    """Looking for work: the cost with 1,000 to 100,000 lanes, and with many live jobs.

    Starts its own durable PostgreSQL in a temporary folder, which takes 2 GB for each million of --jobs. Takes some minutes.
    """
    _report(_run(scan_bench.run(jobs=jobs, rounds=rounds, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="Take two minutes: one round of few devices, and a smaller sweep.")
@click.option("--devices", type=click.IntRange(1, 50_000), help="Devices of the sweep.  [default: 3000; quick: 300]")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the tables."
)
def whatsapp(quick: bool, devices: int | None, json_path: str | None) -> None:
    """WhatsApp devices compared with plain neonize: CPU, memory, threads, connections; and a sweep over thousands.

    Uses only the project's own WhatsApp server on loopback. Starts it and a PostgreSQL in a temporary folder, and a PgBouncer
    if it is installed. Takes about fifteen minutes on two cores, which should be idle otherwise.
    """
    devices = devices or (300 if quick else 3000)
    _report(_run(whatsapp_bench.run(quick=quick, devices=devices, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="Take two minutes: one round of few devices with short gaps.")
@click.option("--devices", type=click.IntRange(1, 50_000), help="WhatsApp devices.  [default: 3000; quick: 120]")
@click.option("--messages", type=click.IntRange(2, 100), help="Of each device.  [default: 4; quick: 3]")
@click.option(
    "--gap",
    type=(click.FloatRange(0.1), click.FloatRange(0.1)),
    metavar="LEAST MOST",
    help="Seconds between two messages of a device.  [default: 20 60; quick: 2 6]",
)
@click.option("--rounds", type=click.IntRange(1), help="Of each subject and phase.  [default: 3; quick: 1]")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the tables."
)
def campaign(quick: bool, gap: tuple[float, float] | None, json_path: str | None, **given: Any) -> None:
    """A campaign over thousands of WhatsApp devices, and plain neonize that sends the same; then all devices at once, cold.

    Uses only the project's own WhatsApp server on loopback. Takes about ten minutes a round on two cores, which should be idle
    otherwise.
    """
    if gap is not None and gap[0] > gap[1]:
        raise click.BadParameter("the least comes first", param_hint="--gap")
    size = campaign_bench.QUICK if quick else campaign_bench.FULL
    size = replace(size, **{name: value for name, value in {**given, "gap": gap}.items() if value is not None})
    _report(_run(campaign_bench.run(size, quick=quick, say=_say)), json_path)


@cli.command()
@click.option("--ttl", type=click.FloatRange(5, 600), default=6, show_default=True, help="`lease.ttl`, in seconds.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Of each.")
@click.option("--devices", type=click.IntRange(8, 1000), default=40, show_default=True, help="Of all shards together.")
@click.option(
    "--fault",
    "faults",
    type=click.Choice(tuple(failover_bench.FAULTS)),
    multiple=True,
    default=tuple(failover_bench.FAULTS),
    help="Only this one; may be repeated.",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def failover(ttl: float, rounds: int, devices: int, faults: tuple[str, ...], json_path: str | None) -> None:
    """How long WhatsApp devices are silent after a fault, with and without spare workers.

    Faults: a worker is killed; their host is killed, stopped or cut off from the database; the database crashes. Uses
    only the project's own WhatsApp server on loopback. Takes ten minutes or more on two cores, which should be idle
    otherwise.
    """
    _report(_run(failover_bench.run(ttl=ttl, rounds=rounds, devices=devices, faults=faults, say=_say)), json_path)


@cli.command()
@click.option("--jobs", type=click.IntRange(10), default=200, show_default=True, help="Jobs of each group in a round.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measurements.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def groups(jobs: int, rounds: int, json_path: str | None) -> None:
    """Order groups and groups of devices with two hosts: from a settle to the claim that waited for it.

    Starts its own durable PostgreSQL in a temporary folder. Takes about two minutes on two cores.
    """
    _report(_run(groups_bench.run(each=jobs, rounds=rounds, say=_say)), json_path)


@cli.command()
@click.option(
    "--devices",
    type=click.IntRange(20),
    multiple=True,
    default=(3000, 30_000, 100_000),
    show_default=True,
    help="Sizes.",
)
@click.option("--seconds", type=click.FloatRange(5), default=60.0, show_default=True, help="How long each is watched.")
@click.option("--quick", is_flag=True, help="Take one minute: 3,000 and 10,000 devices for 10 seconds.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def growth(devices: tuple[int, ...], seconds: float, quick: bool, json_path: str | None) -> None:
    """What idle devices cost: CPU, memory, the time of a start, and how soon a message is claimed.

    Starts its own durable PostgreSQL in a temporary folder. Takes about five minutes on two idle cores.
    """
    sizes, watched = ((3000, 10_000), 10.0) if quick else (devices, seconds)
    _report(_run(growth_bench.run(sizes=sizes, seconds=watched, say=_say)), json_path)


@cli.command()
@click.option("--quick", is_flag=True, help="Take two minutes: 300 devices and 80,000 jobs, in fewer rounds.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the tables."
)
def dashboard(quick: bool, json_path: str | None) -> None:
    """The dashboard with 3,000 devices and a million jobs: the time of every page, and what an open page costs.

    Starts its own durable PostgreSQL in a temporary folder, which takes 3 GB. Takes about fifteen minutes on two idle cores.
    """
    size = dashboard_bench.QUICK if quick else dashboard_bench.FULL
    _report(_run(dashboard_bench.run(size, quick=quick, say=_say)), json_path)


@cli.command()
@click.option("--refreshes", type=click.IntRange(1), default=5000, show_default=True, help="Number of refreshes.")
@click.option(
    "--recycle",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Replace a worker after this many refreshes.",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def soak(refreshes: int, recycle: int, json_path: str | None) -> None:
    """Thousands of refreshes: whether memory and open files of workers grow, and what each refresh leaks.

    Uses only the project's own WhatsApp server on loopback. Takes some minutes, and much longer without PgBouncer.
    """
    _report(_run(soak_bench.run(refreshes=refreshes, recycle=recycle, say=_say)), json_path)


@cli.command()
@click.option(
    "--devices", type=click.IntRange(2, 50_000), default=3000, show_default=True, help="Half of them never send."
)
@click.option("--days", type=click.FloatRange(0.1, 100), default=14, show_default=True, help="Simulated time.")
@click.option(
    "--factor",
    type=click.FloatRange(1, 100_000),
    default=168,
    show_default=True,
    help="Scale of all intervals: simulated seconds in one second. 168: two weeks in two hours.",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the results as JSON; - for stdout, instead of the table."
)
def visits(devices: int, days: float, factor: float, json_path: str | None) -> None:
    """Two weeks of a fleet, scaled down: whether every device is visited in time, and what that costs in a day.

    Uses only the project's own WhatsApp server on loopback, which unlinks devices that show no presence for two weeks.
    """
    _report(_run(visits_bench.run(devices=devices, days=days, factor=factor, say=_say)), json_path)


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
    # In a file, tables need not fit into 80 columns.
    results.show(out if out.is_terminal else Console(width=110))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(results.plain(), indent=2) + "\n")


def _run(work: Awaitable[Any]) -> Any:
    """Run to the end; ^C and SIGTERM cancel it, which stops everything that was started."""

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
