"""A message between supervisor and worker that cannot be encoded or decoded affects only its own content."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, Producer

SITE = str(Path(__file__).parents[1] / "support" / "defect_site")


@pytest.fixture
def damaged(make_daemon: Callable[..., Daemon]) -> Callable[[str], Daemon]:
    """A daemon with a defect (`tests/support/defect_site`)."""

    def make(defect: str) -> Daemon:
        daemon = make_daemon(shards=1, queue={"backoff": {"first": "10ms", "cap": "20ms"}})
        daemon.environ = {"PYTHONPATH": SITE, "SHARDD_TEST_DEFECT": defect}
        return daemon

    return make


def add_jobs_and_a_torn_one(producer: Producer) -> None:
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, reference, max_attempts) "
        "SELECT 'd' || 1 + mod(g, 10), '+49151' || 1000000 + g, what, what, CASE what WHEN 'torn' THEN 2 ELSE 20 END "
        "FROM (SELECT g, CASE g WHEN 33 THEN 'torn' ELSE 'good' END AS what FROM generate_series(1, 100) g) jobs"
    )


def sent_once(daemon: Daemon) -> bool:
    sent = [message["job"] for message in daemon.messages()]
    return len(sent) == len(set(sent))


def restarts(status: dict[str, Any]) -> int:
    return int(status["shards"][0]["restarts"])


async def test_a_job_that_the_worker_cannot_read_ends_and_no_other_does(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("job")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    assert await producer.until_finished(daemon, 100) == {"sent": 99, "failed": 1}
    ((error, error_class),) = producer.execute(
        "SELECT error, error_class FROM shardd.outcomes WHERE reference = 'torn' AND state = 'failed'"
    )
    assert error == "a message of the supervisor cannot be decoded: send_job.job.recipient: Expected `str`, got `int`"
    assert error_class == "worker"
    status = await daemon.until(lambda s: s["problem_kinds"]["defect"] == 1)
    assert "shard 0: a message of the supervisor cannot be decoded: send_job.job.recipient" in status["problems"][0]
    assert "(2 times)" in status["problems"][0]
    assert restarts(status) == 0


async def test_a_job_whose_message_the_worker_cannot_read_ends_and_costs_no_other_an_attempt(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("send")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    states = await producer.until_finished(daemon, 100, patience=100)
    assert states == {"sent": 99, "failed": 1}
    assert producer.execute(
        "SELECT error_class FROM shardd.outcomes WHERE state = 'failed' AND reference = 'torn'"
    ) == [("worker",)]
    assert producer.execute("SELECT max(failures) FROM shardd.outcomes WHERE reference = 'good'") == [(0,)]
    status = await daemon.status()
    assert any("a message of the supervisor cannot be decoded: ?" in problem for problem in status["problems"])
    assert restarts(status) == 0
    assert sent_once(daemon)


async def test_outcomes_that_cannot_be_read_are_asked_for_again(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("outcomes")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    assert await producer.until_finished(daemon, 100) == {"sent": 100}
    status = await daemon.status()
    assert any("a message of the worker cannot be decoded: ?" in problem for problem in status["problems"])
    assert restarts(status) == 0
    assert sent_once(daemon)


async def test_an_outcome_that_can_never_be_read_leaves_only_its_own_job_in_doubt(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("outcome 33")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    assert await producer.until_finished(daemon, 100) == {"sent": 99, "in_doubt": 1}
    assert producer.execute("SELECT id, error FROM shardd.outcomes WHERE state = 'in_doubt'") == [
        (33, "the message that handed the job over, or the one with its outcome, could not be decoded")
    ]
    assert restarts(await daemon.status()) == 0
    assert sent_once(daemon)


async def test_a_worker_that_is_out_of_step_is_named_and_replaced(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("step up")
    producer.add_devices(10)
    await daemon.start()
    producer.add_jobs(10, 10)
    status = await daemon.until(lambda s: restarts(s) == 1)
    assert status["shards"][0]["last_death"].startswith(
        "its messages cannot be decoded any more: a message of 4,294,967,295 bytes was announced"
    )
    # What it had sent stands in its journal.
    assert await producer.until_finished(daemon, 10) == {"sent": 10}
    assert sent_once(daemon)


async def test_a_supervisor_that_is_out_of_step_is_not_called_gone(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("step down")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    status = await daemon.until(lambda s: restarts(s) >= 1)
    assert (
        "exit code 70: the supervisor's messages cannot be decoded any more: a message of"
        in status["shards"][0]["last_death"]
    )
    assert "supervisor is gone" not in daemon.log_file.read_text()


async def test_a_defect_in_hearing_outcomes_is_shown_and_costs_nothing(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("hear")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    assert await producer.until_finished(daemon, 100) == {"sent": 100}
    status = await daemon.status()
    assert "shard 0: Outcomes could not be handled: LookupError: planted" in status["problems"][0]
    assert restarts(status) == 0
    assert sent_once(daemon)


async def test_a_defect_in_settling_a_dead_worker_is_shown_and_tried_again(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("settle")
    producer.add_devices(10)
    await daemon.start()
    os.kill((await daemon.status())["shards"][0]["pid"], signal.SIGKILL)
    add_jobs_and_a_torn_one(producer)
    status = await daemon.until(lambda s: s["problem_kinds"]["defect"] == 1)
    text = "what its worker had in flight could not be settled: LookupError: planted"
    assert status["shards"][0]["error"] == text
    assert not status["healthy"]
    assert await producer.until_finished(daemon, 100) == {"sent": 100}
    assert f"defect of shardd: shard 0: {text}" in (await daemon.status())["problems"][0]
    assert '"name":"settle_dead_worker"' in daemon.log_file.read_text(), "the log has the stack"


async def test_a_job_that_cannot_be_said_fails_and_costs_no_other(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("encoder")
    producer.add_devices(10)
    await daemon.start()
    add_jobs_and_a_torn_one(producer)
    assert await producer.until_finished(daemon, 100) == {"sent": 99, "failed": 1}
    assert producer.execute("SELECT reference, error, error_class FROM shardd.outcomes WHERE state = 'failed'") == [
        ("torn", "this job cannot be handed to a worker: planted", "content")
    ]
    status = await daemon.status()
    assert status["healthy"], status["problems"]
    assert restarts(status) == 0


async def test_a_device_that_no_worker_can_be_told_of_is_named_and_costs_no_other(
    damaged: Callable[[str], Daemon], producer: Producer
) -> None:
    daemon = damaged("encoder")
    producer.add_devices(3)
    producer.execute("""UPDATE shardd.devices SET settings = '{"torn": 1}' WHERE id = 'd2'""")
    await daemon.start()
    status = await daemon.until(lambda s: s["problem_kinds"]["device"] == 1)
    assert "d2: its row cannot be sent to a worker: planted" in status["problems"][0]
    producer.add_jobs(9, 3)
    await daemon.until(lambda s: s["totals"]["sent"] == 6)
    assert producer.states() == {"sent": 6, "queued": 3}
    producer.execute("UPDATE shardd.devices SET settings = '{}' WHERE id = 'd2'")
    assert await producer.until_finished(daemon, 9) == {"sent": 9}
    assert (await daemon.status())["healthy"]

    # The same for one that changes while its worker runs.
    producer.execute("""UPDATE shardd.devices SET settings = '{"torn": 1}' WHERE id = 'd3'""")
    await daemon.until(lambda s: s["problem_kinds"]["device"] == 1)
