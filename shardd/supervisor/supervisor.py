"""The supervisor: one per host, everything in one event loop.

Its start: lock of the state folder → database (its own, when the config names none) → migrations → leases → what an earlier run
left behind → sessions → services. Its end: claim nothing, drain the workers, settle, give the leases back. A service that fails
with a defect ends the daemon in that order: systemd starts it again, and recovery is tested code.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path
from uuid import UUID, uuid4

from shardd.config import Config
from shardd.embedded import EmbeddedPostgres
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.postgres.dsn import server_of
from shardd.queue.migrate import migrate
from shardd.state_files import ID_FILE, STARTS_FILE, record_start, state_id
from shardd.supervisor.cluster.session_store import prepare_sessions, sessions_dsn_of
from shardd.supervisor.cluster.state_folder import StateLock
from shardd.supervisor.compose import Composition, compose
from shardd.supervisor.pools import open_pools
from shardd.supervisor.services import ServiceGroup
from shardd.supervisor.systemd import Notifier

log = get_logger(__name__)


class Supervisor:
    """A node's daemon. `run` returns when it was stopped; SharddError when it cannot start."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._store_notes: list[str] = []
        self._embedded: EmbeddedPostgres | None = None
        self._composition: Composition | None = None
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Start, serve, stop. Raises SharddError."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        _make_state_dir(self._config.state_dir)
        with StateLock(self._config.state_dir) as lock:
            # A pipe that is never written to: it closes with this process, however that ends.
            lifeline, _ = os.pipe()
            try:
                await self._serve(await self._open_database(), lifeline, lock)
            finally:
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
        self._stop.set()

    async def _open_database(self) -> str:
        if self._config.database is not None:
            return self._config.database.dsn
        self._embedded = EmbeddedPostgres(self._config.state_dir)
        return await self._embedded.start()

    async def _serve(self, dsn: str, lifeline: int, lock: StateLock) -> None:
        for name in await migrate(dsn):
            log.info("migrated", action="migrate", migration=name)
        config = self._config
        sessions = sessions_dsn_of(config, dsn)
        incarnation = uuid4()
        async with open_pools(dsn, config) as pools:
            composition = compose(
                config,
                pools,
                lock=lock,
                state_id=_state_id(config.state_dir),
                incarnation=incarnation,
                earlier=_earlier_starts(config.state_dir, incarnation),
                lifeline=lifeline,
                notifier=self._notifier,
                embedded=self._embedded,
                database="embedded" if self._embedded is not None else server_of(dsn),
                sessions_dsn=sessions,
                notes=lambda: self._store_notes,
                ask_to_stop=self.stop,
                end=self._end,
                reload_asked=self._reload,
            )
            await composition.take_over.run()
            self._store_notes = await prepare_sessions(config, composition.node.scheduler, pools.general, sessions)
            self._composition = composition
            await ServiceGroup(composition.services, self._service_failed).run(self._stop, self._stopping)
            log.info("stopped", action="stop")

    def _stopping(self) -> None:
        assert self._composition is not None
        self._composition.node.state = "stopping"
        self._notifier.stopping("draining")
        log.info("stopping", action="stop")
        self._composition.node.router.stop_claiming()

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


def _earlier_starts(folder: Path, incarnation: UUID) -> Collection[UUID]:
    try:
        return record_start(folder, incarnation)
    except OSError as error:
        raise SharddError(f"{folder / STARTS_FILE}: {error.strerror}") from error


def _state_id(folder: Path) -> str:
    try:
        return state_id(folder)
    except OSError as error:
        raise SharddError(f"{folder / ID_FILE}: {error.strerror}") from error
