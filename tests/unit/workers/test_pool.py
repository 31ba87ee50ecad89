"""What happens to a shard at the very moment at which its worker starts, or is replaced, with real workers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shardd import ipc
from shardd.clock import Deadlines, boot_now
from shardd.config import Config
from shardd.config.load import parse_config
from shardd.states import DeviceState, ShardState
from shardd.supervisor.cluster.leases import LeaseKeeper
from shardd.supervisor.cluster.ownership import Ownership
from shardd.supervisor.workers.messages import WorkerMessages
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.spares import Spares
from tests.support.queue_rows import identity
from tests.support.worker_pool import FAR, HANG, make_pool, run_first

PAST = Deadlines(boot_now() - 60.0, boot_now() - 30.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tmp_path.chmod(0o700)
    return parse_config(
        f"state_dir: {tmp_path}\nshards: 1\nsupervisor: {{spawn_every: 10ms, drain_timeout: 10m}}\n", "test", {}
    )


@pytest.fixture
def may_settle() -> asyncio.Event:
    """What a dead worker had in flight, which is nothing, is settled once this is set."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
def pool(config: Config, may_settle: asyncio.Event) -> Iterator[WorkerPool]:
    lifeline, end = os.pipe()
    yield make_pool(config, Spares(config, lifeline=lifeline, transports=tuple, wanted=lambda: 0), may_settle)
    os.close(end)
    os.close(lifeline)


async def start_until_it_waits(pool: WorkerPool) -> asyncio.Task[None]:
    """The process exists, and its channel does not yet."""
    starting = asyncio.create_task(pool.tick())
    await asyncio.sleep(0)
    assert not starting.done()
    return starting


async def blamed(pool: WorkerPool) -> list[bool]:
    """When what the worker of shard 0 had in flight is settled."""
    async with asyncio.timeout(HANG):
        while not pool.shards[0].clean:  # noqa: ASYNC110  # what tells the pool's own waiters may be told before
            await asyncio.sleep(0.01)
    found: list[bool] = pool._dispatch.blamed  # type: ignore[attr-defined]
    return found


async def end_of(process: WorkerProcess | None) -> None:
    assert process is not None
    async with asyncio.timeout(HANG):
        await process.gone.wait()


@pytest.mark.parametrize("left", [{}, {0: 2}])
async def test_a_lease_that_is_lost_while_its_worker_is_started_ends_the_worker(
    pool: WorkerPool, left: dict[int, int]
) -> None:
    """Also when it is back at once, under another epoch than the worker was told."""
    pool.leases({0: 1})
    starting = await start_until_it_waits(pool)
    process = pool.shards[0].process
    pool.leases(left)
    await starting
    await end_of(process)
    assert (pool.shards[0].process, pool.shards[0].state) == (None, ShardState.WAITING)


async def test_a_shard_that_is_given_back_while_its_worker_is_started_has_none_afterwards(pool: WorkerPool) -> None:
    pool.leases({0: 1})
    starting = await start_until_it_waits(pool)
    async with asyncio.timeout(HANG):
        await pool.give_back(0)
    await starting
    assert (pool.shards[0].process, pool.shards[0].state) == (None, ShardState.WAITING)


async def test_a_restart_does_not_wait_for_what_is_settled_when_the_next_worker_comes_at_once(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that changes workers once took 30 s for a shard, and reported that something was not settled.

    In a folder whose files a worker must not run.
    """
    (tmp_path / "json.py").write_text("raise SystemExit('of the folder')")
    monkeypatch.chdir(tmp_path)
    shard = pool.shards[0]

    async def start_as_soon_as_allowed() -> None:
        while not shard.clean:  # noqa: ASYNC110 - the very turn of the loop matters
            await asyncio.sleep(0)
        await pool.tick()

    pool.leases({0: 1})
    async with asyncio.timeout(HANG):
        starting = asyncio.create_task(start_as_soon_as_allowed())
        await pool.restart(0)
        await starting
        before = shard.process
        starting = asyncio.create_task(start_as_soon_as_allowed())
        await pool.restart(0)
    await starting
    assert shard.process is not None
    assert shard.process is not before
    shard.process.kill()
    await end_of(shard.process)


async def test_a_shard_that_is_given_back_gets_no_worker_while_its_lease_is_still_held(pool: WorkerPool) -> None:
    """Its lease is released a moment after its worker has ended: a new worker would have clients open beside another node."""
    await run_first(pool)
    giving = asyncio.create_task(pool.give_back(0))
    async with asyncio.timeout(HANG):
        while not giving.done():
            await pool.tick()
            await asyncio.sleep(0.01)
    for _ in range(3):
        await pool.tick()
    assert (pool.shards[0].process, pool.shards[0].state) == (None, ShardState.WAITING)


async def test_a_shard_gets_no_worker_before_its_dead_one_is_settled(
    pool: WorkerPool, may_settle: asyncio.Event
) -> None:
    """A new worker begins a new journal: what the old one says about its messages would be gone."""
    may_settle.clear()
    first, shard = await run_first(pool), pool.shards[0]
    first.kill()
    await end_of(first)
    shard.next_start = 0.0
    for _ in range(3):
        await pool.tick()
    assert shard.process is None
    may_settle.set()
    async with asyncio.timeout(HANG):
        while shard.process is None:
            await pool.tick()
            await asyncio.sleep(0.01)
    shard.process.kill()
    await end_of(shard.process)


# ---- the deadlines


@asynccontextmanager
async def watched(pool: WorkerPool, deadlines: Deadlines) -> AsyncIterator[LeaseKeeper]:
    """Shard 0 was held until these; its worker was told that it has longer."""
    no_database: Any = None
    keeper = LeaseKeeper(
        no_database, node=identity("a"), incarnation=uuid4(), shards=1, ttl=600.0, margin=60.0
    )  # fmt: skip
    keeper._epochs[0] = 1
    keeper.deadlines = deadlines
    unused: Any = None
    ownership = Ownership(
        keeper, pool,
        read_devices=unused, renewed=unused, end=unused, why_not=unused, hindered_for=unused, away_after=1.0,
    )  # fmt: skip
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(ownership.serve())
        yield keeper
        watching.cancel()


async def test_a_worker_finishes_and_ends_when_the_lease_was_not_renewed(pool: WorkerPool) -> None:
    process = await run_first(pool)
    async with watched(pool, Deadlines(PAST.soft, FAR.hard)) as keeper:
        await end_of(process)
        assert keeper.epochs == {}
    shard = pool.shards[0]
    # In order, and through no fault of its own.
    assert (shard.process, shard.state, shard.restarts, shard.last_error) == (None, ShardState.WAITING, 0, None)
    assert process.exit_status == 0


async def test_a_worker_that_hangs_is_killed_at_the_hard_deadline(pool: WorkerPool) -> None:
    process = await run_first(pool)
    os.kill(process.pid, signal.SIGSTOP)
    async with watched(pool, PAST):
        await end_of(process)
    assert (pool.shards[0].process, pool.shards[0].state) == (None, ShardState.WAITING)


async def test_the_kernel_ends_a_stopped_worker_at_the_deadline_that_it_was_told(pool: WorkerPool) -> None:
    """Nothing of shardd runs: the supervisor does not look, and the worker cannot."""
    process = await run_first(pool)
    beat = process.beat
    process.send(ipc.Lease(soft=FAR.soft, hard=boot_now() + 3.0))
    async with asyncio.timeout(HANG):
        while process.beat is beat and not process.gone.is_set():  # noqa: ASYNC110  # it reads one message after the other
            await asyncio.sleep(0.01)
    if not process.gone.is_set():
        os.kill(process.pid, signal.SIGSTOP)
    await end_of(process)
    assert process.exit_status == -signal.SIGKILL


async def test_a_worker_that_the_kernel_ended_at_its_deadline_has_not_crashed(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a suspend its end is noticed before the deadline is, and no job may be blamed for it."""
    process = await run_first(pool)
    monkeypatch.setattr(pool, "_deadlines", lambda: PAST)
    process.kill()
    await end_of(process)
    shard = pool.shards[0]
    assert (shard.process, shard.epoch, shard.state, shard.restarts) == (None, None, ShardState.WAITING, 0)
    assert await blamed(pool) == [False]


async def test_a_worker_that_ends_because_it_was_told_of_no_renewal_gets_no_more_jobs(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns them at once, so they would come again and again, and it is not ended by one of them."""
    process = await run_first(pool)
    monkeypatch.setattr(pool, "_deadlines", lambda: Deadlines(PAST.soft, FAR.hard))
    pool.renewed({0: 1})
    await end_of(process)
    assert process.exit_status == 0
    assert pool.shards[0].worker_ending
    assert await blamed(pool) == [False]


async def test_a_worker_of_a_shard_that_is_given_back_still_learns_of_renewals(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is held until it is drained, which may take longer than a lease lasts."""
    process = await run_first(pool)
    os.kill(process.pid, signal.SIGSTOP)
    giving = asyncio.create_task(pool.give_back(0))
    await asyncio.sleep(0)
    assert pool.shards[0].epoch is None
    sent: list[ipc.ToWorker] = []
    monkeypatch.setattr(process, "send", sent.append)
    pool.renewed({0: 2})
    assert sent == []
    pool.renewed({0: 1})
    assert sent == [ipc.Lease(*FAR)]
    process.kill()
    async with asyncio.timeout(HANG):
        await giving


async def test_what_a_worker_reports_late_counts_for_the_lease_that_it_served(pool: WorkerPool) -> None:
    """The shard may be this node's again by then, under an epoch that says nothing about what an old client heard."""
    process = await run_first(pool)
    shard = pool.shards[0]
    messages = WorkerMessages(shard, process, pool._handlers, ready=lambda: None)
    shard.epoch = 2
    messages.received(ipc.DeviceChanged("d", DeviceState.REPLACED, "an old client"))
    assert pool._dispatch.changes == [("d", 1)]  # type: ignore[attr-defined]
    process.kill()
    await end_of(process)
