"""The supervisor: one per host, everything in one event loop.

Its start: lock of the state folder → control socket → database (its own, when the config names none) → migrations → leases → what
an earlier run left behind → sessions → services. Until the services run, a stop ends the start where it is. The end: claim
nothing, drain the workers, settle, give the leases back. A service that fails with a defect ends the daemon in that order:
systemd starts it again, and recovery is tested code.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from shardd.config import Config
from shardd.embedded import EmbeddedPostgres
from shardd.errors import AlreadyRunningError, SharddError
from shardd.logs import get_logger
from shardd.postgres.dsn import server_of
from shardd.queue.leases import describe
from shardd.queue.lives import Lives, Past
from shardd.queue.migrate import migrate
from shardd.state_files import ID_FILE, STARTS_FILE, record_start, state_id
from shardd.supervisor.admin.control import Control
from shardd.supervisor.admin.starting import Starting
from shardd.supervisor.cluster.beat_file import BeatFile
from shardd.supervisor.cluster.past import FOLDER_OLDER, agree
from shardd.supervisor.cluster.session_store import prepare_sessions, sessions_dsn_of
from shardd.supervisor.cluster.state_folder import StateLock
from shardd.supervisor.compose import Composition, compose
from shardd.supervisor.pools import open_pools
from shardd.supervisor.services import ServiceGroup
from shardd.supervisor.systemd import Notifier

log = get_logger(__name__)

COMMAND_POLL: Final = 0.2
"""Seconds between looks whether a command still runs the embedded PostgreSQL."""


class Supervisor:
    """A node's daemon. `run` returns when it was stopped; SharddError when it cannot start."""

    def __init__(self, config: Config, notifier: Notifier, *, reload_asked: Callable[[], bool] = lambda: False) -> None:
        """`reload_asked`: whether SIGHUP came before `run`."""
        self._config = config
        self._notifier = notifier
        self._reload_asked = reload_asked
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._starting = Starting(config, notifier)
        self._start: asyncio.Task[Any] | None = None
        """While it is starting."""
        self._notes: list[str] = []
        self._embedded: EmbeddedPostgres | None = None
        self._composition: Composition | None = None
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Start, serve, stop. Raises SharddError."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        if self._reload_asked():
            self._reload.set()
        _make_state_dir(self._config.state_dir)
        with StateLock(self._config.state_dir) as lock:
            # A pipe that is never written to: it closes with this process, however that ends.
            lifeline, _ = os.pipe()
            config = self._config
            control = Control(
                self._starting,
                self.stop,
                socket=config.control_socket,
                group=config.control.group,
                metrics=config.control.metrics,
            )
            self._start = asyncio.current_task()
            try:
                await control.start()
                await self._serve(await self._open_database(), lifeline, lock, control)
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
                log.info("stopped while starting", action="stop", step=self._starting.step)
            finally:
                self._start = None
                await control.close()
                if self._embedded is not None:
                    await self._embedded.stop()
        if isinstance(self._failed, SharddError):
            raise self._failed
        if self._failed is not None:
            raise SharddError(f"a service of the supervisor failed: {self._failed}") from self._failed

    def stop(self) -> None:
        """Drain and exit; on a second call, do not wait for what is in flight."""
        if self._stop.is_set() and self._composition is not None:
            self._composition.node.workers.drain_now()
        if self._start is not None and not self._stop.is_set():
            self._notifier.stopping("ending the start")
            self._start.cancel()
        self._stop.set()

    async def _open_database(self) -> str:
        if self._config.database is not None:
            return self._config.database.dsn
        self._embedded = EmbeddedPostgres(self._config.state_dir)
        said = False
        while True:
            self._starting.enter("starting the embedded PostgreSQL")
            try:
                return await self._embedded.start()
            except AlreadyRunningError as error:
                # No other daemon, because this one holds the lock of the state folder: a command, which will end.
                if not said:
                    log.warning("waiting for a command to end", action="start", reason=str(error))
                    said = True
                self._starting.enter(f"waiting for a command to end: {error}")
            await asyncio.sleep(COMMAND_POLL)

    async def _serve(self, dsn: str, lifeline: int, lock: StateLock, control: Control) -> None:
        self._starting.enter("migrating the database")
        for name in await migrate(dsn, waits=self._migration_waits):
            log.info("migrated", action="migrate", migration=name)
        self._starting.migrated = True
        self._starting.enter("comparing the state folder with the database")
        config = self._config
        sessions = sessions_dsn_of(config, dsn)
        incarnation, state = uuid4(), _state_id(config.state_dir)
        memory = BeatFile(config.state_dir, state, sync=config.worker.journal_fsync)
        async with open_pools(dsn, config, memory.server) as pools:
            past = await agree(
                Lives(pools.leases),
                memory,
                node=state,
                who=describe(config.node, socket.gethostname(), os.getpid(), str(config.state_dir)),
                forgotten_after=config.retention.finished,
                report=self._starting.report,
            )
            self._starting.enter("taking over what an earlier run left")
            is_old = past is Past.FOLDER_OLDER
            if is_old:
                self._notes.append(FOLDER_OLDER.format(folder=config.state_dir))
                log.warning("the state folder is older than it was", action="start", effect=self._notes[-1])
            composition = compose(
                config,
                pools,
                lock=lock,
                state_id=state,
                incarnation=incarnation,
                earlier=_earlier_starts(config.state_dir, incarnation, forget=is_old),
                beats=memory,
                lifeline=lifeline,
                notifier=self._notifier,
                control=control,
                embedded=self._embedded,
                database="embedded" if self._embedded is not None else server_of(dsn),
                dsn=dsn,
                sessions_dsn=sessions,
                notes=lambda: self._notes,
                ask_to_stop=self.stop,
                end=self._end,
                reload_asked=self._reload,
            )
            try:
                await composition.take_over.run()
                self._starting.enter("preparing the sessions of devices")
                self._notes += await prepare_sessions(config, composition.node.scheduler, sessions)
            except asyncio.CancelledError:
                # No worker was started.
                await composition.node.keeper.give_up()
                raise
            self._start = None
            self._composition = composition
            control.node = composition.node
            await ServiceGroup(composition.services, self._service_failed).run(self._stop, self._stopping)
            log.info("stopped", action="stop")

    def _migration_waits(self, reason: str) -> None:
        self._starting.enter(f"migrating the database, which has to wait: {reason}")
        log.warning("the migration of the database has to wait", action="migrate", reason=reason)

    def _stopping(self) -> None:
        assert self._composition is not None
        self._composition.node.state = "stopping"
        self._notifier.stopping("draining")
        log.info("stopping", action="stop")
        self._composition.node.router.stop_claiming()
        self._composition.node.keeper.leave()

    def _end(self, error: SharddError) -> None:
        """End in order, with this error."""
        log.error("this supervisor ends", action="stop", error=str(error))
        self._service_failed(error)

    def _service_failed(self, error: BaseException) -> None:
        self._failed = self._failed or error
        self._stop.set()


def _make_state_dir(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SharddError(f"state_dir {folder}: {error.strerror}: make it, or name another in the config") from error


def _earlier_starts(folder: Path, incarnation: UUID, *, forget: bool) -> Collection[UUID]:
    try:
        return record_start(folder, incarnation, forget=forget)
    except OSError as error:
        raise SharddError(f"{folder / STARTS_FILE}: {error.strerror}") from error


def _state_id(folder: Path) -> str:
    try:
        return state_id(folder)
    except OSError as error:
        raise SharddError(f"{folder / ID_FILE}: {error.strerror}") from error
