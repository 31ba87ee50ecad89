"""Runs a PgBouncer for the sessions of devices when they need more connections than PostgreSQL has, connected to the primary.

Once in use it stays until the daemon stops. Without it, workers open so few clients at once that connections suffice, and other
devices wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from shardd import ipc
from shardd.backoff import full_jitter
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.pgbouncer import NotInstalledError, PgBouncer, PgBouncerError, find_program
from shardd.supervisor.cluster.client_room import ClientRoom, Host, room_for_clients
from shardd.supervisor.cluster.session_store import library_name
from shardd.supervisor.cluster.store_plan import PER_CLIENT, Demand, Supply
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.scheduling.current_config import CurrentConfig
from shardd.supervisor.services import Service, Steps
from shardd.transports.whatsapp.sessions.server import StoreServer, search_path_through

log = get_logger(__name__)

EVERY: Final = 2.0
"""Seconds between checks of the PgBouncer and of the primary."""
COUNT_EVERY: Final = 10.0
"""Seconds between checks whether connections suffice."""
RETRY_FIRST, RETRY_CAP = 1.0, 60.0
"""Seconds until a PgBouncer that could not be used is tried again, after the first failure and after many."""
PATIENCE: Final = 2
"""Checks that a PgBouncer may fail before it is replaced."""
SHORT_LIFE: Final = 10.0
"""Seconds: a PgBouncer that had ended, was started again and ends that soon cannot be used."""
AUTO, OFF = "auto", "off"


class SessionPool(Service):
    """Decides, starts and watches, and publishes the result to the workers."""

    def __init__(
        self,
        current: CurrentConfig,
        store: str,
        steps: Steps,
        *,
        devices: Callable[[], int],
        workers: Callable[[], int],
        host: Callable[[], Host],
        publish: Callable[[ipc.StoreAccess], None],
    ) -> None:
        """`store`: the DSN of the sessions; `devices`: that have sessions; `workers`: of this node; `publish`: to them.

        `host`: what it has for their clients.
        """
        self.text: str | None = None
        """What was decided, and why; None: no device has a session."""
        self._current = current
        self._server = StoreServer(store)
        self._step = steps.add("watching the connections of sessions")
        self._devices = devices
        self._workers = workers
        self._host = host
        self._publish = publish
        self._access = ipc.StoreAccess()
        self._pooler: PgBouncer | None = None
        self._in_use = False
        """Whether clients use the PgBouncer."""
        self._servers = 0
        self._restarted_at = float("-inf")
        self._unanswered = 0
        self._failure: PgBouncerError | None = None
        """Why it cannot be used; None: it can, or was not needed."""
        self._failures = 0
        self._retry_at = self._count_at = float("-inf")

    @property
    def words(self) -> str | None:
        """What was decided, and how many clients may be open; None: no device has a session."""
        if self.text is None or self._access.scarce:
            return self.text
        return (
            f"{self.text}; each worker may have {self._access.clients:,} clients open, because of {self._access.limit}"
        )

    def notes(self) -> list[str]:
        """For the status, while devices wait for connections."""
        return [f"sessions: {self.text}"] if self._access.scarce and not self._in_use else []

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        if self._failure is not None and not isinstance(self._failure, NotInstalledError):
            yield Problem(ProblemKind.SERVER, f"the PgBouncer of the sessions cannot be used: {self._failure}")

    async def start(self) -> None:
        """Decide before the first worker starts."""
        with self._step:
            await self._check()

    async def serve(self) -> None:
        """Check again and again."""
        while True:
            await asyncio.sleep(self._step.pause(EVERY))
            with self._step:
                await self._check()

    async def close(self) -> None:
        """Stop the PgBouncer; the workers have ended before."""
        await self._server.close()
        if self._pooler is not None:
            await self._pooler.close()

    # ---- inside

    async def _check(self) -> None:
        """Raises DatabaseError."""
        self._follow_room()
        if self._current.config.transports.whatsapp.pgbouncer:
            self.text = "through the PgBouncer that database.sessions_dsn names"
        elif self._pooler is not None and self._in_use:
            try:
                await self._watch(self._pooler)
            except PgBouncerError as error:
                await self._pooler.stop()
                self._in_use, self._count_at = False, float("-inf")
                self._failed(error)
                await self._decide()
        elif time.monotonic() >= self._count_at:
            await self._decide()

    async def _decide(self) -> None:
        """Raises DatabaseError; then it is tried again by the next check."""
        config = self._current.config
        room = self._room()
        demand = Demand(self._devices(), config.shards, room.clients)
        if not demand.devices:
            self.text = None
            return
        names = (f"shardd/{config.node}", library_name(config.node))
        supply = Supply(await self._server.free_connections(names))
        self._count_at = time.monotonic() + COUNT_EVERY
        why = f"{demand.words}, {supply.words}"
        if supply.suffices(demand):
            self._failure, self._failures, self._retry_at = None, 0, float("-inf")
            self._change(ipc.StoreAccess(clients=room.clients, limit=room.limit), f"directly: {why}")
        elif config.transports.whatsapp.pooler == OFF:
            self._limit(supply, why, "set transports.whatsapp.pooler to auto, or raise max_connections of the server")
        else:
            if time.monotonic() >= self._retry_at:
                try:
                    await self._begin(supply, why)
                except PgBouncerError as error:
                    self._failed(error)
                else:
                    return
            self._limit(supply, why, str(self._failure))

    async def _begin(self, supply: Supply, why: str) -> None:
        """Start a PgBouncer and let clients use it. Raises PgBouncerError, DatabaseError."""
        config = self._current.config
        configured = config.transports.whatsapp.pooler
        program = await asyncio.to_thread(find_program, None if configured == AUTO else configured)
        pooler = self._pooler = PgBouncer(program, config.state_dir)
        target, self._servers = await self._server.target(), supply.pooled()
        await pooler.start(target, servers=self._servers)
        try:
            await self._verify(pooler)
        except BaseException:
            await pooler.stop()
            raise
        self._in_use, self._unanswered, self._failure, self._failures = True, 0, None, 0
        room = self._room()
        text = f"through a PgBouncer ({program.version}) with {self._servers} connections: {why}"
        self._change(ipc.StoreAccess(pooler.dsn, room.clients, room.limit), text)

    async def _watch(self, pooler: PgBouncer) -> None:
        """Keep it running and connected to the primary. Raises PgBouncerError if it cannot be used; DatabaseError."""
        if pooler.pid is None:
            if time.monotonic() < self._restarted_at + SHORT_LIFE:
                raise PgBouncerError(f"{pooler.program.path} ends again and again")
            log.warning("PgBouncer had ended and is started again", action="pgbouncer")
            assert pooler.target is not None
            await pooler.start(pooler.target, servers=self._servers)
            self._restarted_at = time.monotonic()
        try:
            await pooler.check()
            self._unanswered = 0
        except PgBouncerError as error:
            self._unanswered += 1
            if self._unanswered >= PATIENCE:
                raise
            log.warning("PgBouncer does not answer", action="pgbouncer", error=str(error))
            return
        target = await self._server.target()
        if target == pooler.target:
            return
        log.info("PgBouncer is connected to another server", action="pgbouncer", host=target.host, port=target.port)
        try:
            await pooler.lead_to(target)
            await self._verify(pooler)
        except BaseException:
            # It may be connected to a server that is no longer the primary.
            await pooler.stop()
            raise

    async def _verify(self, pooler: PgBouncer) -> None:
        """Whether sessions are found through it. Raises PgBouncerError."""
        assert pooler.target is not None
        wanted = pooler.target.settings.get("search_path")
        try:
            found = await search_path_through(pooler.dsn)
        except DatabaseError as error:
            raise PgBouncerError(f"the session store is not reached through it: {error}") from error
        if wanted is not None and found != wanted:
            raise PgBouncerError(f"its server connections have the search_path {found} in place of {wanted}")

    def _failed(self, error: PgBouncerError) -> None:
        if str(error) != str(self._failure):
            log.error("PgBouncer cannot be used", action="pgbouncer", error=str(error))
        self._failure = error
        if not isinstance(error, NotInstalledError):
            self._failures += 1
            self._retry_at = time.monotonic() + full_jitter(self._failures, RETRY_FIRST, RETRY_CAP)

    def _limit(self, supply: Supply, why: str, remedy: str) -> None:
        """Let so few clients be open that connections suffice."""
        room = self._room()
        supplied = ClientRoom(supply.clients(self._workers()), "PostgreSQL has no connections for more")
        least = min(supplied, room)
        most = "1 client per worker is" if least.clients == 1 else f"{least.clients:,} clients per worker are"
        text = f"directly: {why}: at most {most} open at once, other devices wait; {remedy}"
        self._change(ipc.StoreAccess(clients=least.clients, limit=least.limit, scarce=True), text)

    def _change(self, access: ipc.StoreAccess, text: str) -> None:
        self.text = text
        if access != self._access:
            # How many exactly changes with the connections of other programs.
            limited = access.scarce and not self._access.scarce
            (log.warning if limited else log.info)("sessions reach PostgreSQL %s", text, action="sessions")
            self._set(access)

    def _follow_room(self) -> None:
        """There is more room when this node has fewer workers, or another config."""
        room = self._room()
        if not self._access.scarce and (room.clients, room.limit) != (self._access.clients, self._access.limit):
            log.info("each worker may open %d clients: %s", room.clients, room.limit, action="room")
            self._set(replace(self._access, clients=room.clients, limit=room.limit))

    def _room(self) -> ClientRoom:
        """For the clients of each worker."""
        config, workers = self._current.config, self._workers() or self._current.config.shards
        if (most := config.transports.whatsapp.max_open_clients) is not None:
            room = ClientRoom(most, "max_open_clients")
        else:
            recycle, go_memory = config.worker.recycle, config.worker.go_memory_limit
            room = room_for_clients(
                self._host(), workers=workers, rss=recycle.rss, fds=recycle.fds, go_memory=go_memory
            )
        if self._in_use and self._pooler is not None:
            pooled = ClientRoom(
                max(1, self._pooler.most_clients // (2 * PER_CLIENT * workers)), "the file descriptors of PgBouncer"
            )
            room = min(pooled, room)
        return room

    def _set(self, access: ipc.StoreAccess) -> None:
        self._access = access
        self._publish(access)
