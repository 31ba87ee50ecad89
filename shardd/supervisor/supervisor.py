"""The supervisor: one per host, everything in one event loop.

Its start: lock of the state folder → database (its own, when the config names none) → migrations → node and leases →
what an earlier run left behind → devices and sessions → router, fleet and watchers. Its end: claim nothing, drain the
workers, settle, give the leases back. A part that fails in a way nobody foresaw ends the whole: systemd starts it
again, and recovery is tried code.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shardd.config import Config, load_config
from shardd.embedded import EmbeddedPostgres
from shardd.errors import DatabaseError, SharddError, UsageError
from shardd.logs import get_logger, set_log_level
from shardd.queue.database import server_of
from shardd.queue.migrate import migrate
from shardd.state_files import ID_FILE, state_id
from shardd.supervisor.admin.control import Control
from shardd.supervisor.admin.health import has_started, in_one_line, node_status
from shardd.supervisor.admin.status import Status
from shardd.supervisor.cluster.session_store import prepare_sessions, sessions_dsn_of
from shardd.supervisor.cluster.state_lock import StateLock
from shardd.supervisor.cluster.upkeep import Upkeep
from shardd.supervisor.parts import Parts, assemble
from shardd.supervisor.pools import open_pools
from shardd.supervisor.reload import plan_reload
from shardd.supervisor.scheduling.outlook import DeviceOutlook, device_outlook
from shardd.supervisor.systemd import Notifier
from shardd.supervisor.tasks import end_tasks
from shardd.supervisor.workers.process import Launch

log = get_logger(__name__)

TICK: Final = 0.1
"""Seconds between looks at the workers."""


class Supervisor:
    """A node's daemon. `run` lives until it is told to stop; SharddError when it cannot start."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        self._started_at = time.time()
        self._state = "starting"
        self._stop = asyncio.Event()
        self._notes: list[str] = []
        self._store_notes: list[str] = []
        self._embedded: EmbeddedPostgres | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: BaseException | None = None
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Start, serve, stop. Raises SharddError."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        _make_state_dir(self._config.state_dir)
        with StateLock(self._config.state_dir) as self._lock:
            self._state_id = _state_id(self._config.state_dir)
            # A pipe that nobody writes to: it closes with this process, however it ends.
            lifeline, _ = os.pipe()
            try:
                await self._serve(await self._open_database(), lifeline)
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

    async def _serve(self, dsn: str, lifeline: int) -> None:
        for name in await migrate(dsn):
            log.info("migrated", action="migrate", migration=name)
        config = self._config
        launch = Launch(
            node=config.node,
            go_memory_limit=config.worker.go_memory_limit,
            log_level=config.log.level,
            log_format=config.log.format,
            lifeline=lifeline,
            state_dir=config.state_dir,
            state_id=self._state_id,
        )
        self._where = "embedded" if self._embedded is not None else server_of(dsn)
        sessions = sessions_dsn_of(config, dsn)
        async with open_pools(dsn, config) as pools:
            self._parts = parts = assemble(config, pools, launch, self._lock, sessions_dsn=sessions)
            self._upkeep = Upkeep(parts, self._embedded)
            await self._take_over(parts)
            self._store_notes = await prepare_sessions(config, parts.scheduler, pools.rest, sessions)
            control = Control(self, socket=config.control_socket, metrics=config.control.metrics)
            await control.start()
            try:
                if parts.cloud_webhook is not None:
                    await parts.cloud_webhook.start()
                await self._live(parts)
            finally:
                await control.close()

    async def _take_over(self, parts: Parts) -> None:
        """Take the leases, then what an earlier run of this node left behind."""
        await parts.recovery.outlive_orphans()
        await parts.keeper.register()
        await parts.keeper.run_cycle(parts.workers.give_back)
        await parts.device_sync.look()
        await parts.recovery.run()
        for shard, why in parts.recovery.blocked.items():
            parts.workers.block(shard, why)
        await self._prepare_archive(parts)
        await parts.opt_outs.tell()
        # What an earlier run heard must hold before anything is claimed.
        await parts.opt_outs.flush()
        # Once more, with what recovery has counted.
        await parts.device_sync.look()
        await parts.campaign_sync.look()
        parts.workers.leases(parts.keeper.epochs)

    async def _prepare_archive(self, parts: Parts) -> None:
        try:
            await parts.jobs.prepare_archive()
        except DatabaseError as error:
            # Whoever reads outcomes in a long transaction keeps a month from being made; the archive takes everything even so.
            log.warning("months of the archive not prepared", action="start", error=str(error))

    async def _live(self, parts: Parts) -> None:
        router = asyncio.create_task(parts.router.run())
        router.add_done_callback(self._part_ended)
        for part in (
            *parts.work_poller.loops(),
            parts.device_sync.run(),
            parts.campaign_sync.run(),
            *(listener.run() for listener in parts.listeners),
            parts.group_assigner.run(),
            parts.receipts.run(),
            parts.opt_outs.run(),
            parts.webhooks.run(),
            parts.state_watch.run(),
            self._tick(parts),
            *self._upkeep.loops(),
        ):
            task = asyncio.create_task(part)
            task.add_done_callback(self._part_ended)
            self._tasks.append(task)
        await self._stop.wait()
        self._state = "stopping"
        self._notifier.stopping("draining")
        log.info("stopping", action="stop")
        parts.router.stop_claiming()
        await parts.workers.stop()
        await end_tasks(self._tasks)
        if parts.cloud_webhook is not None:
            await parts.cloud_webhook.close()
        await parts.receipts.flush()
        await parts.opt_outs.flush()
        await parts.webhooks.close()
        parts.router.close()
        await asyncio.wait([router])
        await parts.keeper.give_up()
        log.info("stopped", action="stop")

    async def _tick(self, parts: Parts) -> None:
        interval = self._notifier.watchdog_interval
        next_watchdog = next_status = 0.0
        while True:
            await parts.workers.tick()
            now = time.monotonic()
            if interval is not None and now >= next_watchdog:
                self._notifier.watchdog()
                next_watchdog = now + interval
            if now >= next_status:
                self._announce(parts)
                next_status = now + 1.0
            if parts.keeper.epochs and not parts.keeper.good():
                parts.workers.fence(parts.keeper.drop_all())
            await asyncio.sleep(TICK)

    def _announce(self, parts: Parts) -> None:
        text = in_one_line(self.status())
        if self._state == "starting" and has_started(parts):
            self._state = "running"
            self._notifier.ready(text)
            log.info("running", action="start", status=text)
        elif self._state == "running":
            self._notifier.status(text)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._state == "stopping":
            return
        error = task.exception()
        if error is not None:
            log.critical("a part of the supervisor failed", action="defect", exc_info=error)
            self._failed = error
            self._stop.set()

    # ---- what people ask for (control.Controlled)

    def stop(self) -> None:
        """Drain and exit; asked a second time, do not wait for what is in flight."""
        if self._state == "stopping":
            log.warning("hurrying", action="stop")
            self._parts.workers.hurry()
        self._stop.set()

    async def reload(self) -> list[str]:
        """Read the config file again. Raises ConfigError: nothing changes then."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> list[str]:
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
        self._config, self._notes = plan.config, plan.notes
        set_log_level(plan.config.log.level)
        self._parts.configure(plan.config, time.monotonic())
        for index in plan.shards_to_restart(self._parts.keeper.epochs):
            await self._parts.workers.restart(index)
        log.info("config reloaded", action="reload", changed=plan.changed, notes=plan.notes)
        return plan.changed + plan.notes

    async def drain_shard(self, shard: int) -> None:
        """Drain a shard; it stays down until restarted. Raises UsageError."""
        await self._parts.workers.drain(shard)

    async def restart_shard(self, shard: int) -> None:
        """Replace a shard's worker. Raises UsageError."""
        await self._parts.workers.restart(shard)

    async def close_device(self, device_id: str) -> None:
        """Close a device's client, which a session that it has no more opens not again. Raises SharddError."""
        await self._parts.device_sync.look()
        queue = self._parts.scheduler.by_id.get(device_id)
        if queue is None:
            raise UsageError(f"device {device_id!r} is unknown")
        await self._parts.workers.close_device(queue.shard, device_id)

    def outlook(self, device_id: str) -> DeviceOutlook:
        """When a device may send, and what it waits for. Raises UsageError."""
        found = device_outlook(self._parts.scheduler, device_id, time.monotonic(), self._why_down)
        if found is None:
            raise UsageError(f"device {device_id!r} is unknown")
        return found

    def status(self) -> Status:
        """The health of the node."""
        return node_status(
            self._parts,
            state=self._state,
            started_at=self._started_at,
            notes=self._parts.recovery.notes
            + self._store_notes
            + self._notes
            + self._parts.webhooks.troubles()
            + [note for listener in self._parts.listeners for note in listener.notes()],
            database=self._where,
            queue=self._upkeep.queue,
        )

    def _why_down(self, shard: int) -> str | None:
        """Why the devices of a shard send nothing whatever their state; None: it is not known to be so."""
        parts = self._parts
        if parts.state_watch.trouble is not None:
            return parts.state_watch.trouble
        trouble = parts.workers.shards[shard].journal_trouble
        return None if trouble is None else f"the journal of its shard: {trouble}"

    def _reload_by_signal(self) -> None:
        task = asyncio.create_task(self.reload())
        # A refusal is logged and noted by `reload` itself.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())


def _make_state_dir(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SharddError(f"state_dir {folder}: {error.strerror}: make it, or name another in the config") from error


def _state_id(folder: Path) -> str:
    try:
        return state_id(folder)
    except OSError as error:
        raise SharddError(f"{folder / ID_FILE}: {error.strerror}") from error
