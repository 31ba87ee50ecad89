"""Spare workers: processes that have loaded everything and wait for a shard, because loading takes seconds.

A shard that is to be started takes one: that of a lost or stopped node, and that of a worker that crashed. There are as many as
the node may have to take over, because it needs the memory of these workers then anyway, and they are a part of it; and at least
one, because a worker may crash on any node. They are started one after the other, while no shard waits for a worker. A spare one
has no shard, no client, no connection and no timer, and is the first that the kernel ends when memory is short.

How it fails: without a spare a shard's worker is started as usual. One that dies is replaced after a backoff. One that another
process would differ from, since the config, the installed files or the transports of the devices have changed, is replaced, too.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from shardd.backoff import full_jitter
from shardd.config import TRANSPORTS, Config
from shardd.errors import UnsafeFileError
from shardd.logs import get_logger
from shardd.supervisor.services import Service
from shardd.supervisor.workers.installed import installed
from shardd.supervisor.workers.launch import (
    Launched,
    LaunchSpec,
    describe_exit,
    launch,
    rename_stderr,
    stderr_of_shard,
)
from shardd.tasks import WakeUp, wait_for_event

log = get_logger(__name__)

LOOK_EVERY: Final = 2.0
"""Seconds between looks at how many are wanted, and whether those that there are still fit."""
SPACING: Final = 0.1
"""Seconds between two looks, at least."""
KEPT: Final = 60.0
"""Seconds for which those are kept that are no longer wanted: a node that is gone may soon be back, and shards that were taken
just now have no worker yet."""
END_TIMEOUT: Final = 2.0
"""Seconds that the end of one may take at a stop: the workers of shards wait to be drained."""
LEAST: Final = 1
"""How many there are if the config does not say, on a node with no other to take over from, too."""
NOTED: Final = 2
"""Deaths in a row that an operator should know about."""


@dataclass(eq=False, slots=True)
class Spare:
    """One of them."""

    launched: Launched
    spec: LaunchSpec
    name: str
    """Of the file of its stderr."""
    since: float = field(default_factory=time.monotonic)
    loaded: bool = False
    ending: bool = False
    """It was told to end."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Spares(Service):
    """Keeps them, and gives each shard that is to be started a process."""

    def __init__(
        self,
        config: Config,
        *,
        lifeline: int,
        transports: Callable[[], Iterable[str]],
        wanted: Callable[[], int],
    ) -> None:
        """`lifeline`: see `launch`; `transports`: those that devices have.

        `wanted`: how many shards the node may have to take over.
        """
        self._config = config
        self._lifeline = lifeline
        self._transports = transports
        self._wanted = wanted
        self.busy: Callable[[], bool] = lambda: False
        """Whether shards wait for workers, which go before spare ones."""
        self._spares: list[Spare] = []
        self._seen: LaunchSpec | None = None
        self._enough_since: float | None = None
        """Since when there are more than are wanted."""
        self._deaths = 0
        """In a row."""
        self._last_death = ""
        self._next_start = 0.0
        self._ended = False
        self._wake = WakeUp(SPACING)

    def configure(self, config: Config) -> None:
        """The config was reloaded."""
        self._config = config
        self._wake.set()

    @property
    def ready(self) -> int:
        """How many have loaded everything."""
        return sum(spare.loaded for spare in self._alive())

    def notes(self) -> list[str]:
        """What an operator should know."""
        if self._deaths < NOTED:
            return []
        return [f"spare workers die ({self._deaths} in a row, the last one by {self._last_death}): fail-over is slower"]

    def take(self, shard: int) -> Launched:
        """A process for a shard: a spare one if there is one, else one that is started now. Raises OSError, UnsafeFileError."""
        spec = self._spec()
        fit = [spare for spare in self._spares if spare.spec == spec and not spare.ending and spare.launched.lives]
        # The oldest that has loaded everything; one that has begun to is better than none.
        for spare in sorted(fit, key=lambda spare: not spare.loaded):
            try:
                rename_stderr(self._config.state_dir, spare.name, stderr_of_shard(shard))
            except (OSError, UnsafeFileError) as error:
                log.warning("spare worker not used", action="spare", shard=shard, error=str(error))
                self._end(spare)
                continue
            self._forget(spare)
            self._wake.set()
            log.info("spare worker taken", action="spare", shard=shard, pid=spare.launched.process.pid)
            return spare.launched
        return launch(LaunchSpec.of(self._config), self._config.state_dir, stderr_of_shard(shard), self._lifeline)

    async def serve(self) -> None:
        """Look, again and again."""
        while True:
            self.look()
            await self._wake.wait(LOOK_EVERY)

    def look(self) -> None:
        """End those that do not fit or are too many, then start one if it is time."""
        now, spec = time.monotonic(), self._spec()
        # During an upgrade the files change for some seconds: none is started until they have settled.
        settled, self._seen = self._seen in (None, spec), spec
        wanted = self._number()
        for spare in self._alive():
            if spare.spec != spec:
                self._end(spare)
            elif not spare.loaded and now - spare.since > self._config.supervisor.start_timeout:
                self._last_death = "a start that takes too long"
                self._count_death(now)
                self._end(spare)
        self._end_surplus(wanted, now)
        self._forgive(now)
        alive = self._alive()
        if (
            settled
            and len(alive) < wanted
            and all(spare.loaded for spare in alive)
            and now >= self._next_start
            and not self.busy()
            and not self._ended
        ):
            self._start_one(spec, now)

    async def close(self) -> None:
        """End all: none is started any more."""
        self._ended = True
        for spare in self._spares:
            self._end(spare)
        for spare in list(self._spares):
            await wait_for_event(spare.gone, END_TIMEOUT)

    def _number(self) -> int:
        number = self._config.supervisor.spares
        return max(LEAST, self._wanted()) if number is None else number

    def _spec(self) -> LaunchSpec:
        """What a spare that is started now would load."""
        names = {name for name in self._transports() if name in TRANSPORTS}
        modules = sorted(TRANSPORTS[name].implementation.partition(":")[0] for name in names)
        return LaunchSpec.of(self._config).loading(tuple(modules), installed())

    def _alive(self) -> list[Spare]:
        return [spare for spare in self._spares if not spare.ending]

    def _end_surplus(self, wanted: int, now: float) -> None:
        surplus = self._alive()[wanted:]
        if not surplus:
            self._enough_since = None
            return
        self._enough_since = now if self._enough_since is None else self._enough_since
        if now - self._enough_since >= KEPT and not self.busy():
            for spare in surplus:
                self._end(spare)

    def _start_one(self, spec: LaunchSpec, now: float) -> None:
        taken = {spare.name for spare in self._spares}
        name = next(name for number in range(len(taken) + 1) if (name := f"spare-{number}.txt") not in taken)
        try:
            launched = launch(spec, self._config.state_dir, name, self._lifeline)
        except (OSError, UnsafeFileError) as error:
            self._last_death = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self._count_death(now)
            return
        spare = Spare(launched, spec, name)
        self._spares.append(spare)
        loop = asyncio.get_running_loop()
        loop.add_reader(launched.pidfd, self._died, spare)
        loop.add_reader(launched.channel, self._heard, spare)

    def _heard(self, spare: Spare) -> None:
        """It has loaded everything: its message is read by whoever gets it. Or it is dead, which `_died` notices."""
        asyncio.get_running_loop().remove_reader(spare.launched.channel)
        try:
            spare.loaded = bool(spare.launched.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return
        self._wake.set()

    def _died(self, spare: Spare) -> None:
        self._forget(spare)
        status = spare.launched.reap()
        spare.launched.channel.close()
        spare.gone.set()
        if not spare.ending:
            self._last_death = describe_exit(status, self._config.state_dir, spare.name)
            self._count_death(time.monotonic())
        self._wake.set()

    def _forget(self, spare: Spare) -> None:
        """It is no spare any more."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(spare.launched.pidfd)
        loop.remove_reader(spare.launched.channel)
        self._spares.remove(spare)

    def _count_death(self, now: float) -> None:
        self._deaths += 1
        backoff = self._config.supervisor.backoff
        pause = full_jitter(self._deaths, backoff.first, backoff.cap)
        self._next_start = now + pause
        log.warning("spare worker died", action="spare", how=self._last_death, again_in=round(pause, 1))

    def _forgive(self, now: float) -> None:
        """Forget deaths once one has waited long enough."""
        if any(
            spare.loaded and now - spare.since >= self._config.supervisor.backoff.reset_after for spare in self._spares
        ):
            self._deaths = 0

    @staticmethod
    def _end(spare: Spare) -> None:
        spare.ending = True
        # It has nothing to lose.
        spare.launched.signal(signal.SIGKILL)
