"""The supervisor: one per host, everything in one event loop.

Its start: lock of the state folder → database (its own, when the config names none) → migrations → node and leases →
what an earlier run left behind → devices → router, fleet and watchers. Its end: claim nothing, drain the workers,
settle, give the leases back. A part that fails in a way nobody foresaw ends the whole: systemd starts it again, and
recovery is tried code.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from shardd import __version__, ipc
from shardd.config import Config, load_config
from shardd.embedded import EmbeddedPostgres
from shardd.errors import DatabaseError, SharddError, UsageError
from shardd.hashing import shard_of
from shardd.logs import get_logger
from shardd.pacing import Pace
from shardd.queue.database import Database, server_of
from shardd.queue.devices import Device, Devices
from shardd.queue.jobs import Jobs
from shardd.queue.migrate import migrate
from shardd.queue.settle import JobBackoff
from shardd.states import ShardState
from shardd.supervisor.control import Control
from shardd.supervisor.fleet import Fleet
from shardd.supervisor.leases import LeaseKeeper
from shardd.supervisor.lines import Line, Lines
from shardd.supervisor.lock import StateLock
from shardd.supervisor.notify import Notifier
from shardd.supervisor.process import Launch
from shardd.supervisor.receipts import Receipts
from shardd.supervisor.recovery import recover, sweep
from shardd.supervisor.reload import plan_reload
from shardd.supervisor.router import Router
from shardd.supervisor.status import QueueStatus, Status, problems_of, shard_status, sum_up
from shardd.supervisor.tasks import end_tasks
from shardd.supervisor.watchers import DeviceWatch, WorkWatch

log = get_logger(__name__)

TICK = 0.1
"""Seconds between looks at the workers."""
SWEEP_EVERY = 60.0
"""Seconds between looks for claims of lost nodes."""
DEPTH_EVERY = 2.0
"""Seconds between counts of the queue, at least; a count that takes long is repeated seldom."""
LEASE_GRACE = 2.0
"""A node is called lost after this many times its lease's ttl."""


class Supervisor:
    """A node's daemon. `run` lives until it is told to stop; SharddError when it cannot start."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        self._started_at = time.time()
        self._state = "starting"
        self._stop = asyncio.Event()
        self._notes: list[str] = []
        self._queue: QueueStatus | None = None
        self._embedded: EmbeddedPostgres | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: BaseException | None = None
        self._zone = config.pacing.zone
        self._lines = Lines(
            shard_of=lambda device_id: shard_of(device_id, config.shards), pace_of=self._pace_of, room_of=self._room_of
        )

    async def run(self) -> None:
        """Start, serve, stop. Raises SharddError."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        self._config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with StateLock(self._config.state_dir):
            # A pipe that nobody writes to: it closes with this process, however it ends.
            lifeline, self._lifeline_end = os.pipe()
            self._launch = Launch(
                node=self._config.node,
                go_memory_limit=self._config.worker.go_memory_limit,
                log_level=self._config.log.level,
                log_format=self._config.log.format,
                lifeline=lifeline,
            )
            try:
                await self._serve(await self._open_database())
            finally:
                if self._embedded is not None:
                    await self._embedded.stop()
        if self._failed is not None:
            raise SharddError(f"a part of the supervisor failed: {self._failed}") from self._failed

    # ---- life

    async def _open_database(self) -> str:
        if self._config.database is not None:
            return self._config.database.dsn
        self._embedded = EmbeddedPostgres(self._config.state_dir)
        return await self._embedded.start()

    async def _serve(self, dsn: str) -> None:
        for name in await migrate(dsn):
            log.info("migrated", action="migrate", migration=name)
        self._server = server_of(dsn)
        self._database = Database(
            dsn,
            application_name=f"shardd/{self._config.node}",
            connect_timeout=self._config.connect_timeout,
            statement_timeout=self._config.statement_timeout,
        )
        async with self._database:
            await self._assemble(dsn)
            control = Control(self, socket=self._config.control_socket, metrics=self._config.control.metrics)
            await control.start()
            try:
                await self._live()
            finally:
                self._notifier.stopping("draining")
                await control.close()

    async def _assemble(self, dsn: str) -> None:
        config = self._config
        self._jobs = Jobs(self._database)
        self._keeper = LeaseKeeper(
            self._database, node=config.node, shards=config.shards, ttl=config.lease.ttl, margin=config.lease.margin
        )
        self._router = Router(
            jobs=self._jobs,
            lines=self._lines,
            say=self._say,
            may_claim=self._keeper.good,
            zone=self._zone,
            batch=config.queue.batch,
            backoff=self._job_backoff,
        )
        self._device_watch = DeviceWatch(
            self._database,
            Devices(self._database),
            self._router,
            say=self._say,
            zone=self._zone,
        )
        self._work_watch = WorkWatch(
            self._database,
            self._jobs,
            self._router,
            poll_every=config.queue.poll_every,
            scan_every=config.queue.scan_every,
        )
        self._receipts = Receipts(self._jobs)
        self._fleet = Fleet(
            config,
            self._launch,
            router=self._router,
            devices_of=lambda shard: [line.device.spec for line in self._lines.of_shard(shard)],
            sessions_dsn=config.database.sessions_dsn if config.database else dsn,
            device_changed=self._device_watch.changed,
            receipt=self._receipts.add,
        )
        await self._keeper.register()
        await self._keeper.turn(self._fleet.give_back)
        await recover(
            config.state_dir,
            self._jobs,
            node=config.node,
            backoff=self._job_backoff,
            grace=LEASE_GRACE * config.lease.ttl,
        )
        await self._jobs.prepare_archive()
        await self._device_watch.look()
        self._fleet.leases(self._keeper.epochs)

    async def _live(self) -> None:
        router = asyncio.create_task(self._router.run())
        router.add_done_callback(self._part_ended)
        for part in (
            self._work_watch.run(),
            self._work_watch.listen(),
            self._device_watch.run(),
            self._device_watch.listen(),
            self._receipts.run(),
            self._keep_leases(),
            self._tick(),
            self._every(DEPTH_EVERY, self._count_queue),
            self._every(SWEEP_EVERY, self._sweep),
        ):
            task = asyncio.create_task(part)
            task.add_done_callback(self._part_ended)
            self._tasks.append(task)
        await self._stop.wait()
        self._state = "stopping"
        self._notifier.stopping("draining")
        log.info("stopping", action="stop")
        self._router.stop_claiming()
        await self._fleet.stop()
        await end_tasks(self._tasks)
        await self._receipts.flush()
        self._router.close()
        await asyncio.wait([router])
        await self._keeper.give_up()
        log.info("stopped", action="stop")

    def _say(self, shard: int, message: ipc.ToWorker) -> bool:
        return self._fleet.say(shard, message)

    def _reload_by_signal(self) -> None:
        task = asyncio.create_task(self.reload())
        # A refusal is logged and noted by `reload` itself.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._state == "stopping":
            return
        error = task.exception()
        if error is not None:
            log.critical("a part of the supervisor failed", action="defect", exc_info=error)
            self._failed = error
            self._stop.set()

    # ---- what goes on

    async def _tick(self) -> None:
        interval = self._notifier.watchdog_interval
        next_watchdog = next_status = 0.0
        while True:
            await self._fleet.tick()
            now = time.monotonic()
            if interval is not None and now >= next_watchdog:
                self._notifier.watchdog()
                next_watchdog = now + interval
            if now >= next_status:
                self._announce()
                next_status = now + 1.0
            if self._keeper.epochs and not self._keeper.good():
                self._fleet.fence(self._keeper.drop_all())
            await asyncio.sleep(TICK)

    def _announce(self) -> None:
        shards = [shard for shard in self._fleet.shards if shard.epoch is not None]
        running = [shard for shard in shards if shard.state is ShardState.RUNNING]
        settled = (ShardState.RUNNING, ShardState.BROKEN, ShardState.BACKOFF, ShardState.DRAINED)
        totals = self.status().totals
        text = f"{len(running)}/{len(shards)} shards, {totals.ready}/{totals.devices} devices, {totals.sent_per_second:g}/s"
        if self._state == "starting" and (running or not shards) and all(shard.state in settled for shard in shards):
            self._state = "running"
            self._notifier.ready(text)
            log.info("running", action="start", shards=len(shards), devices=totals.devices)
        elif self._state == "running":
            self._notifier.status(text)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._config.lease.renew_every)
            try:
                await self._keeper.turn(self._fleet.give_back)
            except DatabaseError as error:
                log.warning(
                    "leases not renewed", action="lease", left=round(self._keeper.seconds_left(), 1), error=str(error)
                )
                continue
            self._fleet.leases(self._keeper.epochs)
            self._router.wake()

    async def _count_queue(self) -> None:
        began = time.monotonic()
        depth = await self._jobs.depth()
        self._queue = QueueStatus(**depth, as_of=time.time())
        # Counting a long queue must stay a small part of the database's work.
        await asyncio.sleep(20 * (time.monotonic() - began))
        if self._embedded is not None:
            await self._embedded.restart_if_dead()

    async def _sweep(self) -> None:
        await sweep(self._jobs, backoff=self._job_backoff, grace=LEASE_GRACE * self._config.lease.ttl)
        await self._jobs.prepare_archive()

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except DatabaseError as error:
                log.debug("put off", action="maintenance", error=str(error))
            await asyncio.sleep(seconds)

    # ---- what people ask for (control.Controlled)

    def stop(self) -> None:
        """Drain and exit; asked a second time, do not wait for what is in hand."""
        if self._stop.is_set():
            log.warning("hurrying", action="stop")
            self._fleet.hurry()
        self._stop.set()

    async def reload(self) -> list[str]:
        """Read the config file again. Raises ConfigError: nothing changes then."""
        if self._config.source is None:
            raise UsageError("this node was started without a config file")
        self._notifier.reloading()
        try:
            plan = plan_reload(self._config, load_config(Path(self._config.source)))
        except SharddError as error:
            self._notes = [f"config refused at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {error}"]
            log.error("config refused; the old one stays", action="reload", error=str(error))
            raise
        finally:
            self._notifier.ready("reloaded")
        self._config = plan.config
        self._notes = plan.notes
        self._router.batch, self._router.backoff = plan.config.queue.batch, self._job_backoff
        self._work_watch.poll_every, self._work_watch.scan_every = (
            plan.config.queue.poll_every,
            plan.config.queue.scan_every,
        )
        self._fleet.configure(plan.config)
        self._lines.repace(time.monotonic())
        self._router.wake()
        for index in plan.shards_to_restart(self._keeper.epochs):
            await self._fleet.restart(index)
        log.info("config reloaded", action="reload", changed=plan.changed, notes=plan.notes)
        return plan.changed + plan.notes

    async def drain_shard(self, shard: int) -> None:
        """Drain a shard; it stays down until restarted. Raises UsageError."""
        await self._fleet.drain(shard)

    async def restart_shard(self, shard: int) -> None:
        """Replace a shard's worker. Raises UsageError."""
        await self._fleet.restart(shard)

    async def close_device(self, device_id: str) -> None:
        """Close a device's client. Raises UsageError."""
        line = self._lines.by_id.get(device_id)
        if line is None:
            raise UsageError(f"device {device_id!r} is unknown")
        await self._fleet.close_device(line.shard, device_id)

    def status(self) -> Status:
        """The health of the node."""
        by_shard: dict[int, list[Line]] = {index: [] for index in range(self._config.shards)}
        for line in self._lines.by_id.values():
            by_shard[line.shard].append(line)
        shards = [
            shard_status(
                shard,
                by_shard[shard.index],
                self._router.shard_totals.get(shard.index, {}),
                self._router.in_hand_count(shard.index),
            )
            for shard in self._fleet.shards
        ]
        problems = problems_of(shards, database_error=self._router.database_error, leases_good=self._keeper.good())
        return Status(
            version=__version__,
            node=self._config.node,
            pid=os.getpid(),
            state=self._state,
            healthy=self._state == "running" and not problems,
            problems=problems,
            notes=self._notes,
            started_at=self._started_at,
            now=time.time(),
            database="embedded" if self._embedded is not None else self._server,
            config=str(self._config.source) if self._config.source else None,
            shards=shards,
            totals=sum_up(
                shards, sandbox_devices=sum(line.device.transport == "sandbox" for line in self._lines.by_id.values())
            ),
            queue=self._queue,
        )

    # ---- what the config says

    @property
    def _job_backoff(self) -> JobBackoff:
        return JobBackoff(first=self._config.queue.backoff.first, cap=self._config.queue.backoff.cap)

    def _pace_of(self, device: Device) -> Pace:
        pacing = self._config.pacing
        gap_min = pacing.gap_min if device.gap_min is None else device.gap_min
        gap_max = pacing.gap_max if device.gap_max is None else device.gap_max
        limit = pacing.daily_limit if device.daily_limit is None else device.daily_limit
        return Pace(gap_min=gap_min, gap_max=max(gap_min, gap_max), daily_limit=limit)

    def _room_of(self, transport: str) -> int:
        return self._config.transports.sandbox.in_hand if transport == "sandbox" else 1
