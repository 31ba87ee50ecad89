"""The set of workers: starts them one after the other, watches them, replaces them, and passes messages on to them.

Everything happens in `tick`, a few times a second, and when a worker sends a message or dies. Before a shard gets a new worker,
everything that the old one had in flight is settled from its journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from shardd import ipc
from shardd.backoff import Breaker
from shardd.config import TRANSPORTS, Config
from shardd.errors import JournalError, SharddError, UnsafeFileError, UsageError
from shardd.journal import journal_path
from shardd.logs import get_logger
from shardd.queue.settle import Claim
from shardd.states import ALONE_FROM, ShardState
from shardd.supervisor.problems import Problem
from shardd.supervisor.services import Service
from shardd.supervisor.workers.budget import memory_problems, next_to_recycle
from shardd.supervisor.workers.messages import MessageHandlers, WorkerMessages
from shardd.supervisor.workers.process import Launch, WorkerProcess
from shardd.supervisor.workers.shard import Intent, Shard
from shardd.tasks import TaskSet

log = get_logger(__name__)

JOURNAL_RETRY: Final = 5.0
"""Seconds between tries to read the journal of a dead worker."""
TICK: Final = 0.1
"""Seconds between looks at the workers."""


class SettleDead(Protocol):
    """Settles what a shard's dead worker had in flight, as its journal says."""

    async def __call__(self, shard: int, how: str, *, by_itself: bool) -> Claim | None:
        """Returns the job that was being prepared alone, if one was. Raises JournalError.

        `how`: how the worker ended, in words; `by_itself`: nobody wanted it to end, so a job may be the cause.
        """


class WorkerPool(Service):
    """All shards of the config; those whose lease this node holds have a worker."""

    def __init__(
        self,
        config: Config,
        launch: Launch,
        *,
        settle_dead: SettleDead,
        devices_of: Callable[[int], list[ipc.DeviceSpec]],
        sessions_dsn: str | None,
        handlers: MessageHandlers,
        lease_left: Callable[[], float],
    ) -> None:
        """`devices_of` a shard; `handlers`: of the messages that workers send."""
        self._config = config
        self._launch = launch
        self._dispatch = handlers.dispatch
        self._settle_dead_worker = settle_dead
        self._devices_of = devices_of
        self._sessions_dsn = sessions_dsn
        self._handlers = handlers
        self._lease_left = lease_left
        self.shards = [self._new_shard(index) for index in range(config.shards)]
        self.ticked_at = 0.0
        """When the workers were last checked, on the monotonic clock."""
        self._last_spawn = 0.0
        self._stopping = False
        self._hurry = False
        self._spawning = asyncio.Lock()
        self._tasks = TaskSet()
        self._changed = asyncio.Event()

    # ---- what others ask for

    def configure(self, config: Config) -> None:
        """The config was reloaded: workers that start from now on get the new setup."""
        self._config = config
        self._launch = replace(self._launch, go_memory_limit=config.worker.go_memory_limit, log_level=config.log.level)
        for shard in self.shards:
            shard.configure(config.supervisor)
            self.send(shard.index, ipc.LogLevel(level=config.log.level))

    def send(self, index: int, message: ipc.ToWorker) -> bool:
        """Send a message to a shard's worker; False when it cannot get it."""
        shard = self.shards[index] if 0 <= index < len(self.shards) else None
        if shard is None or shard.process is None:
            return False
        if isinstance(message, ipc.SendJob) and shard.state is not ShardState.RUNNING:
            return False
        return shard.process.send(message)

    def leases(self, epochs: dict[int, int]) -> None:
        """Which shards this node holds now."""
        for shard in self.shards:
            epoch = epochs.get(shard.index)
            if shard.epoch is not None and epoch != shard.epoch:
                self.fence([shard.index])
            shard.epoch = epoch

    def renewed(self, epochs: Mapping[int, int]) -> None:
        """These leases were renewed: let the workers know how long they last."""
        for shard in self.shards:
            if shard.epoch == epochs.get(shard.index):
                self._send_lease(shard)

    def _send_lease(self, shard: Shard) -> None:
        if shard.epoch is not None:
            grace = self._config.lease.margin / 2
            self.send(shard.index, ipc.Lease(left=max(0.0, self._lease_left()), grace=grace))

    def fence(self, indexes: Iterable[int]) -> None:
        """The lease is lost or may be: the clients must be gone now."""
        for index in indexes:
            shard = self.shards[index]
            shard.epoch = None
            self._dispatch.shard_down(index)
            if shard.process is not None:
                log.warning("lease lost: stopping the worker", action="fence", shard=index)
                shard.intent = "fence"
                shard.process.kill()
        self._notify()

    async def give_back(self, index: int) -> None:
        """Drain a shard whose lease goes to another node."""
        # From now on it gets no new worker, also not between the end of this one and the end of the lease.
        self.shards[index].epoch = None
        await self._drain(self.shards[index], "fence")

    async def drain(self, index: int) -> None:
        """Drain a shard for an operator; it stays down until `restart`. Raises UsageError."""
        shard = self._shard(index)
        shard.held = True
        if shard.state in (ShardState.BACKOFF, ShardState.BROKEN):
            shard.move("drain")
        await self._drain(shard, "drained")

    async def restart(self, index: int) -> None:
        """Replace a shard's worker, or bring a drained or broken shard back; returns when it runs.

        Raises UsageError, and SharddError when the new worker does not come up.
        """
        shard = self._shard(index)
        await self._drain(shard, "respawn")
        if (why := shard.blocked or shard.unsettled) is not None:
            raise SharddError(f"shard {index} cannot start: {why}")
        shard.forgive(time.monotonic())
        deaths = shard.restarts
        await self._until(
            lambda: (
                shard.state is ShardState.RUNNING or shard.restarts > deaths or shard.epoch is None or self._stopping
            )
        )
        if shard.state is not ShardState.RUNNING:
            raise SharddError(f"shard {index} did not come up: {shard.last_error or 'this node gave it away'}")

    async def close_device(self, index: int, device_id: str) -> None:
        """Close the client of a device, so that another process may use its session. Raises SharddError."""
        process = self.shards[index].process
        if process is not None:
            await process.close_client(device_id)

    async def serve(self) -> None:
        """Watch the workers; `ticked_at` shows that this goes on."""
        while True:
            await self.tick()
            self.ticked_at = time.monotonic()
            await asyncio.sleep(TICK)

    async def stop(self) -> None:
        """Drain everything; returns when no worker is left and what they had in flight is settled or in a journal."""
        self._stopping = True
        self._notify()
        await asyncio.gather(*(self._drain(shard, "stop") for shard in self.shards))
        for shard in self.shards:
            if shard.state is not ShardState.STOPPED:
                shard.move("stop")
        await super().stop()

    async def close(self) -> None:
        """End what still waits for a journal."""
        await self._tasks.end()

    def hurry(self) -> None:
        """Do not wait for what is in flight any longer."""
        self._hurry = True

    # ---- the tick

    async def tick(self) -> None:
        """Start, watch, replace."""
        now = time.monotonic()
        if self._hurry:
            self._hurry = False
            self._cut_short(now)
        for shard in self.shards:
            shard.sample(now, self._dispatch.sent_by(shard.index))
            self._watch(shard, now)
        if not self._stopping:
            await self._start_next(now)
            self._recycle_one()

    def _cut_short(self, now: float) -> None:
        log.warning("stop requested again: draining without waiting", action="stop")
        for shard in self.shards:
            if shard.process is not None:
                shard.process.send(ipc.Drain(timeout=0.0))
                shard.kill_at = now + 2.0

    async def _start_next(self, now: float) -> None:
        if now < self._last_spawn + self._config.supervisor.spawn_every:
            return
        for shard in self.shards:
            if shard.may_start(now):
                self._last_spawn = now
                async with self._spawning:
                    await self._spawn(shard)
                return

    async def _spawn(self, shard: Shard) -> None:
        process = WorkerProcess(shard.index, self._launch, lambda how: self._died(shard, how))
        messages = WorkerMessages(shard, process, self._handlers, ready=lambda: self._ready(shard))
        # Before it is started, so that a lease that is lost meanwhile ends it, too.
        shard.spawned(process)
        try:
            await process.start(self._setup(shard.index), messages)
        except (OSError, UnsafeFileError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            shard.died(f"could not be started: {why}", now=time.monotonic())
            shard.count_crash(time.monotonic())
            shard.clean = True
            return
        shard.sent_before.append(self._dispatch.sent_by(shard.index))
        self._send_lease(shard)

    def _setup(self, index: int) -> ipc.Setup:
        transports = self._config.transports
        return ipc.Setup(
            node=self._config.node,
            shard=index,
            journal=str(journal_path(self._config.state_dir, index)),
            state_id=self._launch.state_id,
            send_timeout=self._config.queue.send_timeout,
            transports={
                name: ipc.TransportSpec(TRANSPORTS[name].implementation, settings, transports.in_flight_of(name))
                for name, settings in transports.as_plain().items()
            },
            devices=self._devices_of(index),
            heartbeat_every=self._config.supervisor.heartbeat_every,
            fsync=self._config.worker.journal_fsync,
            sessions_dsn=self._sessions_dsn,
            careful_for=self._config.supervisor.backoff.reset_after if self.shards[index].careful else 0.0,
            opt_out_words=list(self._config.opt_outs.words or ()),
        )

    def _watch(self, shard: Shard, now: float) -> None:
        process = shard.process
        if process is None:
            return
        rules = self._config.supervisor
        if shard.kill_at is not None and now > shard.kill_at:
            process.kill()
        elif shard.state is ShardState.STARTING and now - process.started_at > rules.start_timeout:
            shard.last_error = f"not ready within {rules.start_timeout:g} s"
            process.abort()
        elif shard.state is ShardState.RUNNING and process.silent_for() > rules.heartbeat_timeout:
            shard.last_error = f"no heartbeat for {rules.heartbeat_timeout:g} s"
            process.abort()
        elif shard.state is ShardState.RUNNING:
            shard.proven(now)

    def _recycle_one(self) -> None:
        """Replace a worker that has spent its budget."""
        found = next_to_recycle(self.shards, self._config.worker.recycle)
        if found is not None:
            shard, what = found
            log.info("worker has spent its budget", action="recycle", shard=shard.index, spent=what.text)
            self._tasks.start(
                self._drain(shard, "respawn", outgrows=what.memory),
                lambda error: self._defect(shard, "the worker could not be replaced", error),
            )

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        return memory_problems(self.shards, self._config.worker.recycle, time.monotonic())

    # ---- ready, died

    def _ready(self, shard: Shard) -> None:
        shard.ready()
        if shard.state is ShardState.RUNNING and shard.epoch is not None:
            # What changed while it started.
            self.send(shard.index, ipc.Devices(changed=self._devices_of(shard.index)))
            self._dispatch.shard_up(shard.index, shard.epoch)
        self._notify()

    def block(self, index: int, why: str) -> None:
        """A shard gets no worker until what an earlier one left behind is settled."""
        if index < len(self.shards):
            self.shards[index].blocked = why

    def unblock(self, index: int) -> None:
        """It is settled."""
        if index < len(self.shards):
            self.shards[index].blocked = None

    def _died(self, shard: Shard, how: str) -> None:
        self._dispatch.shard_down(shard.index)
        by_itself = shard.dies_by_itself
        try:
            shard.died(how, now=time.monotonic())
        except Exception as error:  # noqa: BLE001  # a defect: the shard is tried again, and what was in flight is settled
            self._defect(shard, "the end of its worker could not be noted", error)
            shard.process, shard.state = None, ShardState.BACKOFF
            shard.next_start = time.monotonic() + self._config.supervisor.backoff.cap
        self._tasks.start(
            self._settle_dead(shard, how, by_itself=by_itself),
            lambda error: self._defect(shard, "what its worker had in flight could not be settled", error),
        )

    async def _settle_dead(self, shard: Shard, how: str, *, by_itself: bool) -> None:
        """Settle what the dead worker had in flight, as its journal says."""
        while not shard.clean:
            try:
                alone = await self._settle_dead_worker(shard.index, how, by_itself=by_itself)
            except JournalError as error:
                shard.last_error = shard.unsettled = str(error)
                self._notify()
                log.error("journal cannot be read", action="bury", shard=shard.index, error=str(error))
                await asyncio.sleep(JOURNAL_RETRY)
            except Exception as error:  # noqa: BLE001  # a defect: this shard fails, visibly, and is tried again
                self._defect(shard, "what its worker had in flight could not be settled", error)
                await asyncio.sleep(JOURNAL_RETRY)
            else:
                self._count(shard, how, alone)
                shard.clean, shard.unsettled = True, None
        self._notify()

    def _count(self, shard: Shard, how: str, alone: Claim | None) -> None:
        """Whether a death counts for the breaker, which stops a shard whose workers are ill whatever they do.

        It does not when a job is known to be at fault, and the last workers proved by other jobs that they were well. Without
        that proof it counts when a job comes under suspicion and when it is ended: if it is the workers that are ill, few jobs
        are ended, and if the shard has nothing but such jobs, each probe ends one.
        """
        if shard.state is not ShardState.BACKOFF:
            return
        if alone is not None:
            shard.last_error = f"worker died: {how}, while it prepared job {alone.id} of device {alone.device_id} alone"
        well = self._dispatch.sent_by(shard.index) > shard.sent_before[0]
        ends = alone is not None and alone.worker_deaths >= ALONE_FROM
        if alone is not None and (well or (alone.worker_deaths and not ends)):
            shard.excuse_crash()
        else:
            shard.count_crash(time.monotonic())

    def _defect(self, shard: Shard, what: str, error: Exception) -> None:
        shard.last_error = f"{what}: {type(error).__name__}: {error}"
        self._handlers.defects.note(shard.last_error, shard=shard.index, error=error)

    async def _drain(self, shard: Shard, intent: Intent, *, outgrows: bool = False) -> None:
        """Drain a shard's worker and wait until it is gone and settled, or cannot be settled for now.

        `outgrows`: it has grown too large.
        """
        timeout = self._config.supervisor.drain_timeout
        self._dispatch.shard_down(shard.index)
        async with self._spawning:
            pass  # a worker that is being started hears nothing yet
        if shard.process is not None:
            shard.drain(intent, timeout, time.monotonic())
            memory = None
            if outgrows:
                shard.outgrows, memory = True, self._config.worker.recycle.rss
                shard.outgrown.append(time.monotonic())
            shard.process.send(ipc.Drain(timeout=timeout, memory=memory))
            await shard.process.gone.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._until(lambda: shard.clean or shard.unsettled is not None)
        if not shard.clean:
            log.warning("not settled yet; the journal has it", action="drain", shard=shard.index)

    def _notify(self) -> None:
        """Let everyone who waits in `_until` look again."""
        self._changed.set()
        self._changed.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _shard(self, index: int) -> Shard:
        if not 0 <= index < len(self.shards):
            raise UsageError(f"shard {index} is unknown: this config has shards 0 to {len(self.shards) - 1}")
        if self.shards[index].epoch is None:
            raise UsageError(f"shard {index} is not this node's now: ask the node that has it (shardd status on each)")
        return self.shards[index]

    def _new_shard(self, index: int) -> Shard:
        breaker = self._config.supervisor.breaker
        return Shard(
            index=index,
            rules=self._config.supervisor,
            breaker=Breaker(crashes=breaker.crashes, within=breaker.within, probe_every=breaker.probe_every),
        )
