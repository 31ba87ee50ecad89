"""A program that cannot reach PostgreSQL inserts jobs by JSON, on a running daemon."""

from __future__ import annotations

import asyncio

from shardd.dashboard.api.events import WAITING_OF_ONE
from shardd.dashboard.api.jobs import MANY
from tests.fixtures.api import HELLO, MakeProgram
from tests.support.api import Program
from tests.support.daemon import Daemon, Producer
from tests.support.queue_rows import connect


async def test_a_program_inserts_a_job_and_it_is_sent(daemon: Daemon, producer: Producer, program: Program) -> None:
    made = await program.post("/jobs", HELLO | {"reference": "order-17", "metadata": {"order": 17}, "class": "service"})
    assert made.status == 201, made
    (job,) = made.json["jobs"]
    assert job["duplicate"] is False
    await producer.until_finished(daemon, 1)
    shown = (await program.get(f"/jobs/{job['id']}")).json
    assert (shown["state"], shown["reference"], shown["class"]) == ("sent", "order-17", "service")
    assert shown["metadata"] == {"order": 17}
    assert "body" not in shown
    for question in ("?reference=order-17", "", "?limit=1"):
        assert [one["id"] for one in (await program.get(f"/jobs{question}")).json["jobs"]] == [job["id"]]
    assert (await program.get("/jobs?reference=order-18")).json["jobs"] == []
    missing = await program.get("/jobs/4711")
    assert (missing.status, missing.problem) == (404, "not-found")


async def test_a_thousand_jobs_are_one_request_and_one_more_is_too_many(
    daemon: Daemon, producer: Producer, program: Program
) -> None:
    jobs = [HELLO | {"device_id": f"d{1 + number % 2}", "body": str(number)} for number in range(1000)]
    made = await program.post("/jobs", jobs)
    assert made.status == 201, made.text[:500]
    ids = [one["id"] for one in made.json["jobs"]]
    assert len(set(ids)) == 1000
    stored = producer.execute("SELECT id, body FROM shardd.jobs UNION SELECT id, body FROM shardd.archive")
    assert dict(stored) == {number: str(place) for place, number in enumerate(ids)}
    await producer.until_finished(daemon, 1000)
    more = await program.post("/jobs", [*jobs, HELLO])
    assert (more.status, more.problem) == (422, "invalid")
    assert (
        more.json["detail"] == "the list has 1,001 objects: send 1 to 1,000 in one request, and the others in the next"
    )
    assert (await program.post("/jobs", [])).status == 422


async def test_a_duplicate_is_told_with_the_job_that_was_first(program: Program) -> None:
    first = (await program.post("/jobs", [HELLO | {"dedupe_key": "order-17"}, HELLO])).json["jobs"]
    again = await program.post("/jobs", [HELLO, HELLO | {"dedupe_key": "order-17"}, HELLO | {"dedupe_key": "order-18"}])
    assert again.status == 201
    assert [one["duplicate"] for one in again.json["jobs"]] == [False, True, False]
    assert again.json["jobs"][1]["id"] == first[0]["id"]
    only = await program.post("/jobs", HELLO | {"dedupe_key": "order-17"})
    assert (only.status, only.json) == (200, {"jobs": [{"id": first[0]["id"], "duplicate": True}]})
    found = (await program.get("/jobs?dedupe_key=order-17")).json["jobs"]
    assert [one["id"] for one in found] == [first[0]["id"]]
    twice = await program.post("/jobs", [HELLO | {"dedupe_key": "twice"}] * 2)
    assert [one["duplicate"] for one in twice.json["jobs"]] == [False, True]
    assert len({one["id"] for one in twice.json["jobs"]}) == 1


async def test_an_idempotency_key_is_not_silently_ignored(program: Program, producer: Producer) -> None:
    ran = await program.post("/jobs", HELLO, headers={"Idempotency-Key": "17"})
    assert (ran.status, ran.problem) == (400, "malformed")
    assert "give each job a dedupe_key" in ran.json["detail"]
    assert producer.execute("SELECT count(*) FROM shardd.all_outcomes") == [(0,)]


async def test_one_refused_job_of_many_is_named_and_none_is_inserted(program: Program, producer: Producer) -> None:
    for place in (0, 1, 700, 999):
        jobs = [HELLO] * place + [HELLO | {"recipient": "nobody"}] + [HELLO] * (999 - place)
        ran = await program.post("/jobs", jobs)
        assert (ran.status, ran.problem) == (422, "refused")
        assert (ran.json["index"], ran.json["field"]) == (place, "recipient")
    assert producer.execute("SELECT count(*) FROM shardd.all_outcomes") == [(0,)]


async def test_a_token_cannot_take_the_connections_of_all_that_insert(
    program: Program, make_program: MakeProgram, producer: Producer, dsn: str
) -> None:
    many = [HELLO] * (MANY + 1)
    with connect(dsn) as owner, owner.transaction():
        owner.execute("LOCK TABLE shardd.jobs IN SHARE MODE")  # which can be read, and not added to
        inserting = [asyncio.create_task(program.post("/jobs", many)) for _ in range(3)]
        done, others = await asyncio.wait(inserting, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = (task.result() for task in done)
        assert (refused.status, refused.problem, refused.headers["Retry-After"]) == (429, "too-many-requests", "5")
        assert "2 requests of token send-1 insert more than 100 jobs already" in refused.json["detail"]
        assert (await (await make_program("send")).get("/jobs")).status == 200
    assert {answer.status for answer in await asyncio.gather(*others)} == {201}
    assert producer.execute("SELECT count(*) FROM shardd.all_outcomes") == [(2 * len(many),)]


async def test_a_token_cannot_take_the_places_of_all_that_wait_for_events(
    program: Program, make_program: MakeProgram
) -> None:
    position = (await program.get("/events")).json["position"]
    path = f"/events?wait=30&after={position}"
    waiting = [asyncio.create_task(program.get(path)) for _ in range(WAITING_OF_ONE + 1)]
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = (task.result() for task in done)
    assert (refused.status, refused.problem) == (429, "too-many-requests")
    assert "requests of token send-1 wait for events already" in refused.json["detail"]
    look = asyncio.create_task((await make_program("look")).get(path))
    await program.post("/jobs", HELLO)
    answers = await asyncio.gather(*others, look)
    assert [bool(answer.json["events"]) for answer in answers] == [True] * (WAITING_OF_ONE + 1)
