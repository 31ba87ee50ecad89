"""Spare workers, with real processes: which one a shard gets, when one is replaced, and that it harms nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardd.config import Config
from shardd.config.load import parse_config
from shardd.states import ShardState
from shardd.supervisor.workers import spares as spares_module
from shardd.supervisor.workers.launch import open_stderr, stderr_of_shard
from shardd.supervisor.workers.pool import WorkerPool
from shardd.supervisor.workers.spares import Spares
from tests.support.daemon import wait_gone
from tests.support.worker_pool import make_pool, run_first

HANG = 60.0


def config_of(state_dir: Path, more: str = "", *, spares: int | str = 1, shards: int = 1) -> Config:
    supervisor = f"{{spares: {spares}, spawn_every: 1m, backoff: {{first: 1h, cap: 1h}}}}"
    return parse_config(f"state_dir: {state_dir}\nshards: {shards}\nsupervisor: {supervisor}\n{more}", "test", {})


class Bed:
    """A pool, and its spare workers."""

    def __init__(self, config: Config, lifeline: int) -> None:
        self.state_dir = config.state_dir
        self.transports = {"sandbox"}
        self.spares = Spares(config, lifeline=lifeline, transports=lambda: self.transports, wanted=lambda: 0)
        self.pool: WorkerPool = make_pool(config, self.spares)
        self.spares.busy = self.pool.starting

    @property
    def pids(self) -> list[int]:
        return [spare.launched.process.pid for spare in self.spares._spares]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG):
            while not true():
                self.spares.look()
                await asyncio.sleep(0.01)

    async def spare(self) -> int:
        """The process id of the only spare worker, which has loaded everything."""
        await self.until(lambda: self.spares.ready == 1)
        (pid,) = self.pids
        return pid


@asynccontextmanager
async def bed_of(config: Config) -> AsyncIterator[Bed]:
    lifeline, end = os.pipe()
    bed = Bed(config, lifeline)
    yield bed
    await bed.spares.stop()
    for shard in bed.pool.shards:
        if shard.process is not None:
            shard.process.kill()
            async with asyncio.timeout(HANG):
                await shard.process.gone.wait()
    os.close(end)
    os.close(lifeline)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    """Of one shard and one spare worker."""
    async with bed_of(config_of(tmp_path)) as bed:
        yield bed


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def stderr_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/fd/2").readlink()


def environ_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def has_loaded(pid: int, library: str) -> bool:
    return library in Path(f"/proc/{pid}/maps").read_text()


def oom_score(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_a_node_without_others_has_one_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    async with bed_of(config_of(tmp_path, spares="null")) as bed:
        pid = await bed.spare()
        bed.spares.look()
        assert bed.pids == [pid]


async def test_a_shard_that_is_taken_gets_the_spare_worker(bed: Bed) -> None:
    """With its name, its file for stderr, and no longer as the first victim when memory is short."""
    spare = await bed.spare()
    assert (name_of(spare), oom_score(spare)) == ("shardd-spare", 1000)
    # Nothing of a spare worker counts for a shard.
    assert (bed.pool.shards[0].state, bed.pool.shards[0].restarts) == (ShardState.WAITING, 0)
    process = await run_first(bed.pool)
    assert process.pid == spare
    assert (name_of(spare), oom_score(spare)) == ("shardd-0", oom_score("self"))
    assert stderr_of(spare) == bed.state_dir / "stderr" / stderr_of_shard(0)
    assert await bed.spare() != spare


async def test_a_shard_whose_worker_crashed_gets_the_spare_worker(bed: Bed) -> None:
    first = await run_first(bed.pool)
    spare = await bed.spare()
    first.kill()
    async with asyncio.timeout(HANG):
        await first.gone.wait()
    bed.pool.shards[0].next_start = 0.0
    assert (await run_first(bed.pool)).pid == spare


async def test_shards_that_get_spare_workers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with bed_of(config_of(tmp_path, spares=2, shards=3)) as bed:
        await bed.until(lambda: bed.spares.ready == 2)
        spares = bed.pids
        bed.pool.leases({0: 1, 1: 2, 2: 3})
        await bed.pool.tick()
        assert [shard.process and shard.process.pid for shard in bed.pool.shards[:2]] == spares
        # Nor is one started that takes the machine's time from a shard without a worker.
        for shard in bed.pool.shards[:2]:
            await bed.until(lambda shard=shard: shard.state is ShardState.RUNNING)  # type: ignore[misc]
        bed.spares.look()
        assert bed.pids == []


async def test_a_planted_link_in_place_of_its_stderr_is_replaced_and_not_followed(bed: Bed, tmp_path: Path) -> None:
    await bed.spare()
    os.close(open_stderr(bed.state_dir, stderr_of_shard(0)))
    file, victim = bed.state_dir / "stderr" / stderr_of_shard(0), tmp_path / "victim"
    victim.write_text("precious")
    file.unlink()
    file.symlink_to(victim)
    await run_first(bed.pool)
    assert not file.is_symlink()
    assert victim.read_text() == "precious"


async def test_one_that_dies_is_noticed_and_not_replaced_before_a_backoff(bed: Bed) -> None:
    for death in (1, 2):
        os.kill(await bed.spare(), signal.SIGKILL)
        await bed.until(lambda: not bed.pids)
        assert bool(bed.spares.notes()) == (death == 2)
        for _ in range(3):
            bed.spares.look()
        assert bed.pids == []
        bed.spares._next_start = 0.0  # the hour is over
    assert bed.spares.notes() == ["spare workers die (2 in a row, the last one by SIGKILL): fail-over is slower"]
    shard = bed.pool.shards[0]
    assert (shard.state, shard.restarts, shard.last_error) == (ShardState.WAITING, 0, None)
    # Without one, a worker is started as usual.
    await run_first(bed.pool)


async def test_one_that_died_a_moment_ago_is_not_given_to_a_shard(bed: Bed) -> None:
    spare = await bed.spare()
    os.kill(spare, signal.SIGKILL)
    os.waitid(os.P_PID, spare, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  # the loop, which would notice, must not run
    assert (await run_first(bed.pool)).pid != spare
    assert bed.pool.shards[0].restarts == 0


async def test_it_ends_when_its_supervisor_does(bed: Bed) -> None:
    spare = await bed.spare()
    # The kernel does no more than this for a supervisor that was killed.
    bed.spares._spares[0].launched.channel.shutdown(2)
    await bed.until(lambda: spare not in bed.pids)


async def test_it_is_replaced_once_the_installed_files_have_changed(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(packages))
    bed.spares.look()  # of the real packages, none is started while they seem to change
    spare = await bed.spare()
    (packages / "neonize-0.5.2.dist-info").mkdir()
    # Neither is an outdated one given to a shard,
    assert (await run_first(bed.pool)).pid != spare
    assert bed.pids == [spare]
    # nor is another one started before the files have settled.
    bed.spares.look()
    assert bed.spares._alive() == []
    assert await bed.spare() != spare
    await wait_gone(spare)


async def test_it_follows_a_reload_of_the_config(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = await bed.spare()
    bed.pool.configure(config_of(bed.state_dir, "worker: {go_memory_limit: 400MiB}"))
    await bed.until(lambda: bed.pids != [spare] and bed.spares.ready == 1)
    assert f"GOMEMLIMIT={400 * 2**20}" in environ_of(bed.pids[0])
    # Those that are too many are kept for a while, then not.
    fewer = config_of(bed.state_dir, "worker: {go_memory_limit: 400MiB}", spares=0)
    bed.pool.configure(fewer)
    for _ in range(3):
        bed.spares.look()
    assert len(bed.spares._alive()) == 1
    monkeypatch.setattr(spares_module, "KEPT", 0.0)
    await bed.until(lambda: not bed.pids)
    assert bed.spares.notes() == []


async def test_it_loads_the_library_only_for_devices_that_need_it_and_ends_in_order(bed: Bed) -> None:
    """The library's threads get signals, too: their handlers were installed after it had been loaded."""
    sandbox = await bed.spare()
    assert not has_loaded(sandbox, "neonize")
    bed.transports = {"sandbox", "whatsapp", "of a newer release"}
    await bed.until(lambda: bed.pids != [sandbox] and bed.spares.ready == 1)
    (whatsapp,) = bed.pids
    assert has_loaded(whatsapp, "neonize")
    process = await run_first(bed.pool)
    assert process.pid == whatsapp
    os.kill(whatsapp, signal.SIGTERM)
    async with asyncio.timeout(HANG):
        await process.gone.wait()
    assert process.exit_status == 0
