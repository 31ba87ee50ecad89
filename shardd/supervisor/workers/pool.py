"""The set of workers: starts them one after the other, watches them, replaces them, and passes messages on to them.

Everything happens in `tick`, a few times a second, and when a worker sends a message or dies. Before a shard gets a new worker,
everything that the old one had in flight is settled from its journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from shardd import ipc
from shardd.clock import Deadlines, boot_now
from shardd.config import Config
from shardd.errors import SharddError, UnsafeFileError, UsageError
from shardd.logs import get_logger
from shardd.states import ShardState
from shardd.supervisor.problems import Problem
from shardd.supervisor.services import Service
from shardd.supervisor.workers.budget import memory_problems, next_to_recycle, room_notes
from shardd.supervisor.workers.deaths import Deaths, SettleDead
from shardd.supervisor.workers.messages import MessageHandlers, WorkerMessages
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.setup import worker_setup
from shardd.supervisor.workers.shard import Intent, Shard
from shardd.supervisor.workers.spares import Spares
from shardd.tasks import TaskSet

log = get_logger(__name__)

TICK: Final = 0.1
"""Seconds between checks of the workers."""


async def _keep(_: int) -> None:
    """No other node waits for the shard."""


class WorkerPool(Service):
    """All shards of the config; those whose lease this node holds have a worker."""

    def __init__(
        self,
        config: Config,
        *,
        spares: Spares,
        state_id: str,
        settle_dead: SettleDead,
        devices_of: Callable[[int], list[ipc.DeviceSpec]],
        sessions_dsn: str | None,
        handlers: MessageHandlers,
        deadlines: Callable[[], Deadlines],
    ) -> None:
        """`spares`: where processes come from; `state_id`: of the state folder; `handlers`: of what workers report.

        `deadlines`: of the leases, as of their last renewal.
        """
        self._config = config
        self._spares = spares
        self._state_id = state_id
        self._dispatch = handlers.dispatch
        self._devices_of = devices_of
        self._sessions_dsn = sessions_dsn
        self._store_access = ipc.StoreAccess()
        self._handlers = handlers
        self._deadlines = deadlines
        self.shards = [Shard(index, config.supervisor) for index in range(config.shards)]
        self.ticked_at = 0.0
        """When the workers were last checked, on the monotonic clock."""
        self.released: Callable[[int], Awaitable[None]] = _keep
        """Called at a stop with each shard whose worker is gone and settled, as soon as it is."""
        self._last_spawn = 0.0
        self._stopping = False
        self._drain_now = False
        self._held_logins: set[str] = set()
        self._spawning = asyncio.Lock()
        self._draining = TaskSet()
        self._changed = asyncio.Event()
        self._deaths = Deaths(settle_dead, self._dispatch, self._defect, self._notify)

    # ---- requests

    def configure(self, config: Config) -> None:
        """The config was reloaded: workers that start from now on get the new setup."""
        self._config = config
        self._spares.configure(config)
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
        if isinstance(message, ipc.SendJob) and shard.process.arrived:
            # Sent in the same turn of the loop in which the job was checked.
            job = msgspec.structs.replace(message.job, heard=shard.process.arrived)
            message = msgspec.structs.replace(message, job=job)
        return shard.process.send(message)

    def opted_out(self, addresses: Sequence[str]) -> None:
        """A person with these addresses opted out: no worker relies on an earlier answer about them."""
        for shard in self.shards:
            self.send(shard.index, ipc.OptOutsHeard(addresses=list(addresses)))

    def change_store_access(self, access: ipc.StoreAccess) -> None:
        """How workers reach the session store from now on."""
        self._store_access = access
        for shard in self.shards:
            self.send(shard.index, ipc.ChangeStoreAccess(access))

    def hold_logins(self, transport: str, *, held: bool) -> None:
        """See `ipc.HoldLogins`; also of workers that start later."""
        (self._held_logins.add if held else self._held_logins.discard)(transport)
        for shard in self.shards:
            self.send(shard.index, ipc.HoldLogins(transport=transport, held=held))

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
            # Also one that is given back: its lease is held until it is drained.
            if shard.process is not None and shard.process.epoch == epochs.get(shard.index):
                self._send_lease(shard.process)

    def _send_lease(self, process: WorkerProcess) -> None:
        soft, hard = self._deadlines()
        process.send(ipc.Lease(soft=soft, hard=hard))

    def wind_down(self, indexes: Iterable[int], deadlines: Deadlines) -> None:
        """Leases were not renewed: the workers finish what has started, and are ended at the hard deadline."""
        for index in indexes:
            shard = self.shards[index]
            shard.epoch = None
            self._dispatch.shard_down(index)
            if shard.process is not None:
                log.warning("lease not renewed: draining the worker", action="fence", shard=index)
                shard.wind_down(deadlines.hard)
                shard.process.send(ipc.Drain(timeout=deadlines.left_to_finish()))
        self._notify()

    def end_overdue(self) -> None:
        """End the workers whose hard deadline has passed."""
        now = boot_now()
        for shard in self.shards:
            if shard.process is not None and shard.hard_deadline is not None and now >= shard.hard_deadline:
                shard.process.kill()

    def fence(self, indexes: Iterable[int]) -> None:
        """The leases are lost: end the workers at once."""
        for index in indexes:
            shard = self.shards[index]
            shard.epoch = None
            self._dispatch.shard_down(index)
            if shard.process is not None:
                log.warning("lease lost: stopping the worker", action="fence", shard=index)
                shard.intent = "fence"
                shard.process.kill()
        self._notify()

    def give_back(self, index: int) -> Coroutine[Any, Any, None]:
        """Drain a shard whose lease goes to another node: begins when it is awaited."""
        # From this moment on it gets no new worker, not even between the end of this one and the end of the lease.
        self.shards[index].epoch = None
        return self._drain(self.shards[index], "fence")

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
        shard.reset(time.monotonic())
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
        """Drain all; returns when no worker is left and what they had in flight is settled or in a journal."""
        self._stopping = True
        self._notify()
        await asyncio.gather(*(self._stop_shard(shard) for shard in self.shards))
        for shard in self.shards:
            if shard.state is not ShardState.STOPPED:
                shard.move("stop")
        await super().stop()

    async def _stop_shard(self, shard: Shard) -> None:
        await self._drain(shard, "stop")
        if shard.clean and shard.process is None:
            await self.released(shard.index)

    async def close(self) -> None:
        """End what still waits."""
        await self._draining.end()
        await self._deaths.end()

    def drain_now(self) -> None:
        """Do not wait for what is in flight."""
        self._drain_now = True

    # ---- the tick

    async def tick(self) -> None:
        """Start, watch, replace."""
        now = time.monotonic()
        if self._drain_now:
            self._drain_now = False
            self._cut_short(now)
        for shard in self.shards:
            shard.sample(now, self._dispatch.sent_by(shard.index))
            shard.watch(now)
        if not self._stopping:
            await self._start_next(now)
            self._recycle_one()

    def _cut_short(self, now: float) -> None:
        log.warning("stop requested again: draining without waiting", action="stop")
        for shard in self.shards:
            if shard.process is not None:
                shard.process.send(ipc.Drain(timeout=0.0))
                shard.kill_at = now + 2.0

    def starting(self) -> bool:
        """Whether a shard waits for a worker, or for its worker to be ready."""
        now = time.monotonic()
        return any(shard.state is ShardState.STARTING or shard.may_start(now) for shard in self.shards)

    async def _start_next(self, now: float) -> None:
        for shard in self.shards:
            if not shard.may_start(now):
                continue
            at_once = self._spares.ready > 0
            if not at_once and now < self._last_spawn + self._config.supervisor.spawn_every:
                return
            async with self._spawning:
                await self._spawn(shard)
            if not at_once:
                self._last_spawn = now
                return

    async def _spawn(self, shard: Shard) -> None:
        process = WorkerProcess(
            shard.index, self._config.state_dir, lambda how: self._died(shard, how), epoch=shard.epoch
        )
        messages = WorkerMessages(shard, process, self._handlers, ready=lambda: self._ready(shard))
        # Before it is started, so that a lease that is lost meanwhile ends it, too.
        shard.spawned(process)
        try:
            await process.start(self._spares.take(shard.index), self._setup(shard), messages)
        except (OSError, UnsafeFileError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            shard.died(f"could not be started: {why}", now=time.monotonic())
            shard.count_crash(time.monotonic())
            shard.clean = True
            return
        shard.sent_before.append(self._dispatch.sent_by(shard.index))
        self._send_lease(process)

    def _setup(self, shard: Shard) -> ipc.Setup:
        return worker_setup(
            self._config,
            shard.index,
            state_id=self._state_id,
            devices=self._devices_of(shard.index),
            sessions_dsn=self._sessions_dsn,
            store_access=self._store_access,
            careful=shard.careful,
        )

    def _recycle_one(self) -> None:
        """Replace a worker that has used up its budget."""
        found = next_to_recycle(self.shards, self._config.worker.recycle)
        if found is not None:
            shard, what = found
            log.info("worker has used up its budget", action="recycle", shard=shard.index, spent=what.text)
            self._draining.start(
                self._drain(shard, "respawn", outgrows=what.memory),
                lambda error: self._defect(shard, "the worker could not be replaced", error),
            )

    def notes(self) -> list[str]:
        """For the status, while clients are closed that will be needed again."""
        return room_notes(self.shards, self._store_access)

    def problems(self) -> Iterable[Problem]:
        """See `shardd.supervisor.problems`."""
        return memory_problems(self.shards, self._config.worker.recycle, time.monotonic())

    def _ready(self, shard: Shard) -> None:
        shard.ready()
        if shard.state is ShardState.RUNNING and shard.epoch is not None:
            # Devices may have changed while it started.
            self.send(shard.index, ipc.Devices(changed=self._devices_of(shard.index)))
            for transport in self._held_logins:
                self.send(shard.index, ipc.HoldLogins(transport=transport, held=True))
            self._dispatch.shard_up(shard.index, shard.epoch)
        self._notify()

    def _died(self, shard: Shard, how: str) -> None:
        deadlines = self._deadlines()
        if shard.epoch is not None and boot_now() >= deadlines.hard:
            # After a suspend this is noticed first. The kernel has ended it: no job is to blame, nor has it crashed.
            self.wind_down([shard.index], deadlines)
        self._deaths.died(shard, how)

    def block(self, reasons: Mapping[int, str]) -> None:
        """These shards, and no others, get no worker until what an earlier one left behind is settled."""
        for shard in self.shards:
            shard.blocked = reasons.get(shard.index)

    async def _drain(self, shard: Shard, intent: Intent, *, outgrows: bool = False) -> None:
        """Drain a shard's worker and wait until it is gone and settled, or cannot be settled for now.

        `outgrows`: it has grown too large.
        """
        timeout = self._config.supervisor.drain_timeout
        self._dispatch.shard_down(shard.index)
        async with self._spawning:
            pass  # a worker that is being started cannot receive yet
        drained = shard.process
        if drained is not None:
            shard.drain(intent, timeout, time.monotonic())
            memory = None
            if outgrows:
                shard.outgrows, memory = True, self._config.worker.recycle.rss
                shard.outgrown.append(time.monotonic())
            drained.send(ipc.Drain(timeout=timeout, memory=memory))
            await drained.gone.wait()

        def settled() -> bool:
            # Another worker may be there before this task sees that the shard is clean, which it must have been.
            return shard.clean or shard.process not in (None, drained)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._until(lambda: settled() or shard.unsettled is not None)
        if not settled():
            log.warning("not settled yet; the journal has it", action="drain", shard=shard.index)

    def _defect(self, shard: Shard, what: str, error: Exception) -> None:
        shard.last_error = f"{what}: {type(error).__name__}: {error}"
        self._handlers.defects.note(shard.last_error, shard=shard.index, error=error)

    def _notify(self) -> None:
        """Let `_until` check its condition again."""
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
