"""`shardd start`, `stop`, `drain`, `restart`: the life of the daemon and its shards."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import time
from pathlib import Path

import click

from shardd.cli.client import ask, ask_now
from shardd.cli.options import WholeNumber, config_option
from shardd.cli.output import say
from shardd.cli.reachable import daemon_config
from shardd.cli.silent_node import explaining
from shardd.config import Config, load_config
from shardd.errors import SharddError

GRACE = 30.0
"""Seconds beyond the drain timeout for starting, settling and closing."""


@click.command()
@config_option
def start(config_file: Path) -> None:
    """Run the supervisor in the foreground, until SIGTERM or ^C. SIGHUP reads the config again."""
    # Only the daemon needs these; every other command starts in half the time without them.
    import uvloop  # noqa: PLC0415

    from shardd.cli.announce import TerminalNotifier  # noqa: PLC0415
    from shardd.logs import configure_logs, log_uncaught  # noqa: PLC0415
    from shardd.supervisor.supervisor import Supervisor  # noqa: PLC0415
    from shardd.supervisor.systemd import Notifier  # noqa: PLC0415

    config = load_config(config_file)
    # For the watchdog's SIGABRT: the stacks go to the log.
    faulthandler.enable()
    configure_logs(config.log.level, config.log.format, node=config.node)
    log_uncaught()
    silent = sys.stderr.isatty() and config.log.level in {"warning", "error"}
    notifier = (TerminalNotifier if silent else Notifier)(os.environ)

    async def run() -> None:
        await Supervisor(config, notifier).run()

    uvloop.run(run())


@click.command()
@config_option
def stop(config_file: Path) -> None:
    """Drain every shard and stop; returns when the supervisor is gone."""
    config = daemon_config(config_file)
    asyncio.run(_stop(config))
    say("stopped")


async def _stop(config: Config) -> None:
    async with explaining(config):
        pid = (await ask(config.control_socket, "GET", "/status"))["pid"]
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, gone.set)
    try:
        await ask(config.control_socket, "POST", "/stop")
        limit = config.supervisor.drain_timeout + GRACE
        try:
            async with asyncio.timeout(limit):
                await gone.wait()
        except TimeoutError:
            raise SharddError(f"shardd (pid {pid}) is still stopping after {limit:g} s; its log says why") from None
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


@click.command()
@click.argument("shard", type=WholeNumber(0))
@config_option
def drain(shard: int, config_file: Path) -> None:
    """Finish what SHARD has in flight and stop its worker; it stays down until `shardd restart SHARD`."""
    config = daemon_config(config_file)
    ask_now(config.control_socket, "POST", f"/shards/{shard}/drain", timeout=config.supervisor.drain_timeout + GRACE)
    say(f"shard {shard} is drained; bring it back with: shardd restart {shard}")


@click.command()
@click.argument("shards", type=WholeNumber(0), nargs=-1, metavar="[SHARD]...")
@config_option
def restart(shards: tuple[int, ...], config_file: Path) -> None:
    """Replace the workers of these shards, one after the other; all of them when none is named."""
    config = daemon_config(config_file)
    timeout = config.supervisor.drain_timeout + config.supervisor.start_timeout + GRACE
    if not shards:
        # The daemon knows which there are; the file may have changed, or have errors.
        shards = tuple(one["shard"] for one in ask_now(config.control_socket, "GET", "/status")["shards"])
    for shard in shards:
        began = time.monotonic()
        ask_now(config.control_socket, "POST", f"/shards/{shard}/restart", timeout=timeout)
        say(f"shard {shard} restarted in {time.monotonic() - began:.1f} s")
