"""Faults of PostgreSQL. One at a time: what follows waits until the standby has everything again."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stormlib.database import processes_of
from stormlib.faults import Make, frozen
from stormlib.place import Place
from stormlib.plan import Fault, Kind
from stormlib.records import Span
from tests.support.servers import Server

KINDS = {
    "restart database": Kind(2, 0.0, 0.3),
    "crash database": Kind(2, 0.0, 0.8),
    "fail over": Kind(3, 0.0, 0.3),
    "refuse all": Kind(1, 0.1, 1.5),
    "freeze database": Kind(1, 0.1, 1.5),
    "slow database": Kind(1, 0.3, 1.0),
    "read-only database": Kind(1, 0.1, 1.0),
    "commits hang": Kind(2, 0.1, 1.5),
}
BEHIND = {"fail over behind": Kind(3, 0.0, 0.3)}
"""Of an asynchronous standby."""
LAG = (0.2, 2.0)
"""Seconds by which it is behind."""
SLOW = 0.15
"""Seconds by which a slow database delays each answer, at most."""


@asynccontextmanager
async def _restart(place: Place, _: Fault) -> AsyncIterator[str]:
    async with _stopped(place, place.databases.primary):
        yield "the primary"


@asynccontextmanager
async def _crash(place: Place, _: Fault) -> AsyncIterator[str]:
    async with _stopped(place, place.databases.primary, signal.SIGQUIT):
        yield "the primary"


@asynccontextmanager
async def _fail_over(place: Place, _: Fault) -> AsyncIterator[str]:
    await place.databases.fail_over()
    yield f"the server on port {place.databases.primary.port} is the primary now"
    await place.databases.rebuild_standby()


@asynccontextmanager
async def _fail_over_behind(place: Place, fault: Fault) -> AsyncIterator[str]:
    shortest, longest = LAG
    lag = shortest + fault.pick * (longest - shortest)
    begin = place.log.write("behind", seconds=lag)
    await place.databases.fail_over(lag)
    place.setbacks.append(Span(begin, place.log.write("promoted")))
    yield f"the server on port {place.databases.primary.port} is the primary now, {lag:.1f} s behind"
    await place.databases.rebuild_standby()


@asynccontextmanager
async def _refuse(place: Place, _: Fault) -> AsyncIterator[str]:
    databases = place.databases
    await databases.execute("ALTER DATABASE shardd ALLOW_CONNECTIONS false")
    await databases.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shardd'")
    yield "the database shardd"
    await databases.execute("ALTER DATABASE shardd ALLOW_CONNECTIONS true")


@asynccontextmanager
async def _freeze(place: Place, _: Fault) -> AsyncIterator[str]:
    pids = processes_of(place.databases.primary)
    async with frozen(pids):
        yield f"{len(pids)} processes"
    await place.databases.wait_synchronous()


@asynccontextmanager
async def _slow(place: Place, fault: Fault) -> AsyncIterator[str]:
    links = [link for node in place.nodes for link in node.databases]
    for link in links:
        link.slow(SLOW * fault.pick)
    yield f"{SLOW * fault.pick:.3f} s"
    for link in links:
        link.slow(0)


@asynccontextmanager
async def _read_only(place: Place, _: Fault) -> AsyncIterator[str]:
    await place.databases.set("default_transaction_read_only", "on")
    yield "the primary"
    await place.databases.set("default_transaction_read_only", None)


@asynccontextmanager
async def _commits_hang(place: Place, _: Fault) -> AsyncIterator[str]:
    """They wait for the standby, which is away."""
    async with _stopped(place, place.databases.standby, signal.SIGQUIT):
        yield "the standby"


@asynccontextmanager
async def _stopped(place: Place, server: Server, signum: int = signal.SIGINT) -> AsyncIterator[None]:
    """Stop a server for the block; `signum`: see `stop_server`."""
    await place.databases.stop_server(server, signum)
    yield
    await place.databases.start_server(server)
    await place.databases.wait_synchronous()


MAKERS: dict[str, Make] = {
    "restart database": _restart,
    "crash database": _crash,
    "fail over": _fail_over,
    "fail over behind": _fail_over_behind,
    "refuse all": _refuse,
    "freeze database": _freeze,
    "slow database": _slow,
    "read-only database": _read_only,
    "commits hang": _commits_hang,
}
