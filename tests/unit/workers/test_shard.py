"""Whether the jobs that a dead worker was preparing become suspects, and what that means for the next worker."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shardd.config import SupervisorConfig
from shardd.states import ShardState
from shardd.supervisor.workers.process import WorkerProcess
from shardd.supervisor.workers.shard import Intent, Shard
from shardd.transports.whatsapp.clients import draining


@pytest.mark.parametrize(
    ("epoch", "intent", "outgrows", "told", "by_itself"),
    [
        (1, None, False, False, True),
        (1, "respawn", True, False, True),  # it grew too large, and died before it had drained
        (1, "drained", False, False, False),
        (1, "stop", False, False, False),
        (1, "respawn", False, False, False),
        (1, None, False, True, False),
        (1, "respawn", True, True, False),
        (None, None, False, False, False),
        (None, "fence", False, False, False),
        (2, "fence", False, False, False),  # its lease was lost, and there is another one by now
    ],
)
def test_who_wanted_the_end(
    *, epoch: int | None, intent: Intent | None, outgrows: bool, told: bool, by_itself: bool
) -> None:
    shard = Shard(0, SupervisorConfig(), epoch=epoch, intent=intent, outgrows=outgrows, worker_ending=told)
    assert shard.dies_by_itself is by_itself


def test_what_an_earlier_worker_was_told_says_nothing_of_the_next_one() -> None:
    shard = Shard(0, SupervisorConfig(), epoch=1, intent="respawn", outgrows=True, worker_ending=True)
    shard.spawned(WorkerProcess(0, Path(), lambda _: None, epoch=1))
    assert (shard.dies_by_itself, shard.outgrows) == (True, False)


def test_a_death_that_a_job_is_to_blame_for_makes_no_later_worker_careful_and_no_wait_longer() -> None:
    shard = Shard(0, SupervisorConfig(), epoch=1)
    for careful, excused in ((False, False), (False, True), (False, True), (True, False), (True, True)):
        shard.state = ShardState.RUNNING
        shard.died("SIGKILL", now=100.0)
        if excused:
            shard.discount_crash()
        assert shard.careful is careful
    assert shard.crashes_in_a_row == 2
    assert shard.restarts == 5


def test_how_workers_died_lately_is_remembered_and_why_they_were_ended() -> None:
    shard = Shard(0, SupervisorConfig(), epoch=1)
    shard.deaths.append((time.time() - 3700, "exit code 1"))
    for how, hangs in (("SIGKILL", None), ("SIGABRT", "no heartbeat for 10 s"), ("SIGKILL", None)):
        shard.state, shard.hangs = ShardState.RUNNING, hangs
        shard.died(how, now=100.0)
    assert [how for _, how in shard.deaths_lately()] == [
        "SIGKILL",
        "no heartbeat for 10 s: ended by SIGABRT",
        "SIGKILL",
    ]
    shard.prepared_alone("job 7 of device d1")
    assert shard.deaths_lately()[-1][1] == "SIGKILL, while it prepared job 7 of device d1 alone"
    assert shard.last_error == "worker died: SIGKILL, while it prepared job 7 of device d1 alone"
    # A worker whose end was requested did not die.
    shard.state, shard.intent = ShardState.DRAINING, "respawn"
    shard.died("exit code 0", now=100.0)
    assert len(shard.deaths_lately()) == 3


def test_a_worker_is_not_killed_while_its_clients_store_what_they_have_received() -> None:
    shard = Shard(0, SupervisorConfig(), epoch=1, state=ShardState.RUNNING)
    shard.drain("stop", 30.0, now=100.0)
    assert shard.kill_at is not None
    # A second for sends that are cancelled, one to disconnect, two to stop the library.
    assert shard.kill_at - (100.0 + 30.0) >= draining.TIMEOUT + 4.0
