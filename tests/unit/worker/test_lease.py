"""What a worker does with what it is told about its lease, and what the kernel does when the worker cannot."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from shardd import clock, ipc
from shardd.clock import boot_now
from shardd.worker import lease as lease_module
from shardd.worker.lease import WorkerLease

HANG = 30.0

STOPS_ITSELF = """
import os, signal
from shardd.clock import boot_now
from shardd.worker.last_moment import LastMoment
last_moment = LastMoment()
last_moment.set(boot_now() + 600)
last_moment.set(boot_now() + {seconds})
os.kill(os.getpid(), signal.SIGSTOP)
"""

OUTLIVES_A_MOMENT_THAT_WAS_PUT_OFF = """
from shardd.clock import boot_now
from shardd.worker.last_moment import LastMoment
last_moment = LastMoment()
first = boot_now() + 0.5
last_moment.set(first)
last_moment.set(first + 600)
while boot_now() < first + 0.1:
    pass
"""


def ends_with(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], timeout=HANG, check=False).returncode


@pytest.mark.parametrize("seconds", ["0.5", "-5", "-10**9"])
def test_the_kernel_ends_a_process_at_its_last_moment_though_it_is_stopped(seconds: str) -> None:
    """Also when that has passed by then."""
    assert ends_with(STOPS_ITSELF.replace("{seconds}", seconds)) == -signal.SIGKILL


def test_a_last_moment_that_is_put_off_ends_nothing() -> None:
    assert ends_with(OUTLIVES_A_MOMENT_THAT_WAS_PUT_OFF) == 0


class Told:
    """A lease in this process, which the kernel must not end."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.times = 0
        self.lease = WorkerLease(self._over)
        self.lease._last_moment = None

    def _over(self) -> None:
        self.times += 1
        self.over.set()


@pytest.fixture
async def told() -> Told:
    return Told()


async def test_before_anything_is_said_there_is_no_deadline(told: Told) -> None:
    told.lease.check()
    assert told.lease.may_start()
    assert told.lease.may_pass()
    assert not told.over.is_set()


async def test_a_lease_that_is_read_late_is_over(told: Told) -> None:
    """It says until when, not how long from its arrival."""
    told.lease.set(ipc.Lease(soft=boot_now() - 20.0, hard=boot_now() - 10.0))
    assert not told.lease.may_start()
    assert not told.lease.may_pass()
    assert told.lease.left_to_finish() == 0.0
    async with asyncio.timeout(HANG):
        await told.over.wait()


async def test_a_message_that_is_read_late_ends_nothing_when_a_newer_one_waits_behind_it(told: Told) -> None:
    """A worker that takes long to start finds several; one that did nothing for long looks first, and twice."""
    told.lease.set(ipc.Lease(soft=boot_now() - 20.0, hard=boot_now() - 10.0))
    told.lease.check()
    told.lease.check()
    told.lease.set(ipc.Lease(soft=boot_now() + 300.0, hard=boot_now() + 400.0))
    told.lease.check()
    told.lease.check()
    assert not told.over.is_set()
    assert told.lease.may_start()


READS_A_LEASE_THAT_IS_OVER_FIRST = """
import asyncio
from shardd import ipc
from shardd.clock import boot_now
from shardd.worker.lease import WorkerLease
async def main():
    lease = WorkerLease(lambda: None)
    lease.set(ipc.Lease(soft=boot_now() - 20.0, hard=boot_now() - 10.0))
    lease.set(ipc.Lease(soft=boot_now() + 300.0, hard=boot_now() + 400.0))
asyncio.run(main())
"""


def test_the_kernel_does_not_end_a_worker_that_first_reads_of_a_lease_that_is_over() -> None:
    """It took long to start, and has no client yet."""
    assert ends_with(READS_A_LEASE_THAT_IS_OVER_FIRST) == 0


async def test_between_the_deadlines_what_has_started_may_end(told: Told) -> None:
    told.lease.set(ipc.Lease(soft=boot_now() - 100.0, hard=boot_now() + 300.0))
    assert not told.lease.may_start()
    assert told.lease.may_pass()
    # It leaves a part of the time for closing the clients.
    assert 100.0 < told.lease.left_to_finish() <= 200.0


async def test_it_is_over_without_a_renewal_and_says_so_once(told: Told) -> None:
    told.lease.set(ipc.Lease(soft=boot_now() + 0.05, hard=boot_now() + 0.1))
    async with asyncio.timeout(HANG):
        await told.over.wait()
    told.lease.check()
    told.lease.check()
    assert told.times == 1
    assert not told.lease.may_start()


async def test_after_a_suspend_it_is_over_though_no_timer_has_run(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop's clock stands still meanwhile."""
    told.lease.set(ipc.Lease(soft=boot_now() + 300.0, hard=boot_now() + 400.0))
    told.lease.check()
    assert not told.over.is_set()
    asleep_for(600.0, monkeypatch)
    assert not told.lease.may_start()
    assert not told.lease.may_pass()
    told.lease.check()
    async with asyncio.timeout(HANG):
        await told.over.wait()


def asleep_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was suspended: the clock of leases has gone on."""
    awake: Callable[[], float] = clock.boot_now
    for module in (clock, lease_module):
        monkeypatch.setattr(module, "boot_now", lambda: awake() + seconds)
