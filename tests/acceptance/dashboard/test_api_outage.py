"""The database is away, or the supervisor is."""

from __future__ import annotations

import signal

from tests.fixtures.api import HELLO, MakeProgram
from tests.fixtures.postgres import Cluster
from tests.support.api import Program
from tests.support.daemon import Daemon, Producer


async def test_without_a_database_every_answer_says_so_and_nothing_is_lost(
    daemon: Daemon, program: Program, postgres: Cluster, producer: Producer
) -> None:
    before = (await program.post("/jobs", HELLO | {"dedupe_key": "before"})).json["jobs"][0]
    await producer.until_finished(daemon, 1)
    await postgres.stop()
    for answer in (await program.get("/jobs"), await program.post("/jobs", HELLO | {"dedupe_key": "during"})):
        assert (answer.status, answer.problem) == (503, "database")
        assert answer.json["detail"].startswith("the database does not answer: ")
        assert answer.headers["Retry-After"]
    await postgres.start()
    again: dict[str, object] = {}
    while "jobs" not in again:
        again = (await program.post("/jobs", [HELLO | {"dedupe_key": key} for key in ("before", "during")])).json
    assert [one["duplicate"] for one in again["jobs"]] == [True, False]  # type: ignore[attr-defined]
    assert again["jobs"][0]["id"] == before["id"]  # type: ignore[index]
    assert await producer.until_finished(daemon, 2) == {"sent": 2}


async def test_without_a_supervisor_a_program_goes_on_inserting(
    daemon: Daemon, devices: None, make_program: MakeProgram, producer: Producer
) -> None:
    send, look = await make_program("send"), await make_program("look")
    assert (await look.get("/status")).status == 200
    daemon.kill(signal.SIGSTOP)
    try:
        made = await send.post("/jobs", HELLO)
        assert made.status == 201
        while (answer := await look.get("/status")).status == 200:
            pass  # a status is shown again for a second
        assert (answer.status, answer.problem) == (503, "supervisor")
    finally:
        daemon.kill(signal.SIGCONT)
    await producer.until_finished(daemon, 1)
