"""`shardd start`, `stop`, `reload`, `drain`, `restart`: the life of the daemon and its shards."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import sys
import time
from typing import Final

import click

from shardd.cli.help import examples
from shardd.cli.node import ask_daemon
from shardd.cli.options import ReadBy, config_option, daemon_config_option, run_async
from shardd.cli.output import say
from shardd.config import Config
from shardd.config.values import Whole
from shardd.errors import SharddError

GRACE: Final = 30.0
"""Seconds beyond the drain timeout for starting, settling and closing."""


@click.command(epilog=examples("shardd start --config=shards.yaml"))
@config_option
def start(config: Config) -> None:
    """Run shardd in the foreground.

    SIGTERM or ^C drains and stops it; SIGHUP reads the config again.
    """
    # Only the daemon needs these; every other command starts in half the time without them.
    import uvloop  # noqa: PLC0415

    from shardd.cli.early import reload_asked  # noqa: PLC0415
    from shardd.logs import configure_logs, log_uncaught  # noqa: PLC0415
    from shardd.supervisor.supervisor import Supervisor  # noqa: PLC0415
    from shardd.supervisor.systemd import Notifier  # noqa: PLC0415

    class TerminalNotifier(Notifier):
        """Also reports on stderr, once, that the daemon is running: its log may be silent as long as all is well."""

        announced = False

        def ready(self, status: str) -> None:
            super().ready(status)
            if not self.announced:
                self.announced = True
                say(f"shardd is running: {status}; ^C stops it", err=True)

    # The watchdog's SIGABRT writes all stacks to the log.
    faulthandler.enable()
    configure_logs(config.log.level, config.log.format, node=config.node)
    log_uncaught()
    silent = sys.stderr.isatty() and config.log.level in {"warning", "error"}
    notifier = (TerminalNotifier if silent else Notifier)(os.environ)

    gc.freeze()  # modules live as long as the process: no collection need look at them

    async def run() -> None:
        await Supervisor(config, notifier, reload_asked=reload_asked).run()

    uvloop.run(run())


@click.command(epilog=examples("shardd stop"))
@daemon_config_option
def stop(config: Config) -> None:
    """Drain all shards and stop shardd.

    Returns when the process has ended.
    """
    asyncio.run(_stop(config))
    say("stopped")


async def _stop(config: Config) -> None:
    pid = (await ask_daemon(config, "GET", "/status"))["pid"]
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, gone.set)
    limit = config.supervisor.drain_timeout + GRACE
    try:
        await ask_daemon(config, "POST", "/stop")
        async with asyncio.timeout(limit):
            await gone.wait()
    except TimeoutError:
        raise SharddError(f"shardd (pid {pid}) is still stopping after {limit:g} s; the log has the reason") from None
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


@click.command(epilog=examples("shardd reload"))
@daemon_config_option
@run_async
async def reload(config: Config) -> None:
    """Have shardd read its config file again.

    The same as SIGHUP. A file with an error is refused, and the config in effect stays. `shardd config sample` marks what takes
    effect when.
    """
    # Some changes replace the workers, one after the other.
    timeout = config.shards * (config.supervisor.drain_timeout + config.supervisor.start_timeout) + GRACE
    changed = (await ask_daemon(config, "POST", "/reload", timeout=timeout))["changed"]
    for line in changed or ["reloaded: nothing changed"]:
        say(line)


@click.command(epilog=examples("shardd drain 2"))
@click.argument("shard", type=ReadBy(Whole()))
@daemon_config_option
@run_async
async def drain(shard: int, config: Config) -> None:
    """Drain a shard and stop its worker.

    What is in flight is finished. The shard stays down until `shardd restart SHARD`.
    """
    timeout = config.supervisor.drain_timeout + GRACE
    await ask_daemon(config, "POST", f"/shards/{shard}/drain", timeout=timeout)
    say(f"shard {shard} is drained; bring it back with: shardd restart {shard}")


@click.command(epilog=examples("shardd restart", "shardd restart 2 3"))
@click.argument("shards", type=ReadBy(Whole()), nargs=-1, metavar="[SHARD]...")
@daemon_config_option
@run_async
async def restart(shards: tuple[int, ...], config: Config) -> None:
    """Replace the workers of shards, one by one.

    Without SHARD: of all shards.
    """
    timeout = config.supervisor.drain_timeout + config.supervisor.start_timeout + GRACE
    if not shards:
        # Asked of the daemon: the config file may have changed since it started, or have errors.
        shards = tuple(one["shard"] for one in (await ask_daemon(config, "GET", "/status"))["shards"])
    for shard in shards:
        began = time.monotonic()
        await ask_daemon(config, "POST", f"/shards/{shard}/restart", timeout=timeout)
        say(f"shard {shard} restarted in {time.monotonic() - began:.1f} s")
