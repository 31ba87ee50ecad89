"""Tokens of bound roles: what holds for their logins in SQL holds for them, by the same code."""

from __future__ import annotations

import pytest

from tests.fixtures.api import MakeProgram
from tests.fixtures.producers import Tenants
from tests.integration.queue.migrations.test_producers import ALLOWED, REFUSED
from tests.support.api import Answer, Program
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.queue_rows import connect

TEXT = {"recipient": "+6281234567890", "body": "hello"}


def let_act(tenants: Tenants, role: str) -> str:
    """Let shardd act as a role, with the statement that `shardd token add` prints."""
    with tenants.cluster.superuser() as superuser:
        superuser.execute(f'GRANT "{role}" TO shardd'.encode())
    return role


@pytest.fixture
async def of_alpha(tenants: Tenants, alpha: str, make_program: MakeProgram) -> Program:
    """Bound to device a1, group ga and campaign ca."""
    return await make_program("send", f"--role={let_act(tenants, alpha)}")


@pytest.fixture
async def of_beta(tenants: Tenants, beta: str, make_program: MakeProgram) -> Program:
    """Bound to device b1 and campaign cb."""
    return await make_program("send", f"--role={let_act(tenants, beta)}")


def ids(answer: Answer) -> set[int]:
    return {job["id"] for job in answer.json["jobs"]}


async def test_it_sends_what_is_bound_and_is_refused_the_rest_in_the_words_of_sql(
    of_alpha: Program, producer: Producer
) -> None:
    sent = set()
    for fields in ALLOWED:
        answer = await of_alpha.post("/jobs", TEXT | fields)
        assert answer.status == 201, answer
        sent |= ids(answer)
    for fields, message in REFUSED:
        answer = await of_alpha.post("/jobs", [TEXT | ALLOWED[0], TEXT | fields])
        assert (answer.status, answer.problem) == (403, "not-bound")
        assert answer.json["detail"].startswith(f"{message}. To see your bindings")
        assert (answer.json["index"], answer.json["field"]) == (1, message.partition(" ")[0])
        assert "shardd producer add" in answer.json["fix"]
    assert ids(await of_alpha.get("/jobs")) == sent
    owners = producer.execute("SELECT producer, count(*) FROM (TABLE shardd.jobs) j GROUP BY producer")
    assert {owner for owner, _ in owners} <= {"alpha"}


async def test_what_is_foreign_is_refused_as_if_it_did_not_exist(of_alpha: Program) -> None:
    for column, foreign, base in (
        ("device_id", "b1", {}),
        ("device_group", "gb", {}),
        ("campaign", "cb", {"device_id": "a1"}),
    ):
        told = await of_alpha.post("/jobs", TEXT | base | {column: foreign})
        unknown = await of_alpha.post("/jobs", TEXT | base | {column: "x1"})
        assert told.status == unknown.status == 403
        assert told.text.replace(foreign, "x1") == unknown.text


async def test_each_sees_its_own_jobs_events_and_keys_and_nothing_of_the_other(
    daemon: Daemon, of_alpha: Program, of_beta: Program, tenants: Tenants, producer: Producer
) -> None:
    programs = {"a": of_alpha, "b": of_beta}
    jobs: dict[str, set[int]] = {}
    for letter, program in programs.items():
        job = TEXT | {"device_id": f"{letter}1", "dedupe_key": "order-17", "reference": "order-17"}
        made = await program.post("/jobs", [job | {"campaign": f"c{letter}"}, TEXT | {"device_id": f"{letter}1"}])
        assert made.status == 201, made
        assert [one["duplicate"] for one in made.json["jobs"]] == [False, False]
        jobs[letter] = ids(made)
    await producer.until_finished(daemon, 4)
    for letter, program in programs.items():
        others = jobs["b" if letter == "a" else "a"]
        assert ids(await program.get("/jobs")) == jobs[letter]
        (mine,) = ids(await program.get("/jobs?reference=order-17"))
        assert mine in jobs[letter]
        assert ids(await program.get("/jobs?dedupe_key=order-17")) == {mine}
        for number in others:
            assert (await program.get(f"/jobs/{number}")).status == 404
        for number in jobs[letter]:
            assert (await program.get(f"/jobs/{number}")).json["state"] == "sent"
        told = (await program.get("/events")).json["events"]
        assert {event["job_id"] for event in told if event["job_id"] is not None} == jobs[letter]
        assert {event["data"]["device_id"] for event in told} <= {f"{letter}1", f"{letter}2"}


async def test_a_token_without_a_role_is_a_producer_without_bindings(
    of_alpha: Program, tenants: Tenants, make_program: MakeProgram, producer: Producer
) -> None:
    free = await make_program("send")
    made = await free.post("/jobs", [TEXT | {"device_id": "a1"}, TEXT | {"device_group": "gb", "campaign": "cb"}])
    assert made.status == 201, made
    assert ids(await free.get("/jobs")) == ids(made)
    assert len(ids(await of_alpha.get("/jobs"))) == 1
    # Its statements on the same connections, before and after those of a bound role, are planned for it alone.
    for _ in range(8):
        assert len(ids(await of_alpha.get("/jobs"))) == 1
        assert ids(await free.get("/jobs")) == ids(made)


async def test_a_binding_that_is_taken_back_holds_at_once(daemon: Daemon, of_alpha: Program, tenants: Tenants) -> None:
    assert (await of_alpha.post("/jobs", TEXT | {"device_id": "a1"})).status == 201
    ran = await Command(daemon.config_file)("producer", "remove", "alpha", "--device=a1")
    assert ran.code == 0, ran.err
    answer = await of_alpha.post("/jobs", TEXT | {"device_id": "a1"})
    assert (answer.status, answer.problem) == (403, "not-bound")


async def test_a_role_that_shardd_may_not_act_as_any_more_is_a_problem_in_words(
    of_alpha: Program, tenants: Tenants, producer: Producer
) -> None:
    with tenants.cluster.superuser() as superuser:
        superuser.execute("REVOKE alpha FROM shardd")
    for answer in (await of_alpha.post("/jobs", TEXT | {"device_id": "a1"}), await of_alpha.get("/jobs")):
        assert (answer.status, answer.problem) == (403, "role")
        assert 'permission denied to set role "alpha"' in answer.json["detail"]
    with connect(tenants.dsn) as owner:
        assert owner.execute("SELECT count(*) FROM shardd.jobs").fetchone() == (0,)


async def test_a_role_that_is_no_producer_any_more_inserts_nothing(of_alpha: Program, tenants: Tenants) -> None:
    with tenants.cluster.superuser() as superuser:
        superuser.execute("REVOKE shardd_producer FROM alpha")
    answer = await of_alpha.post("/jobs", TEXT | {"device_id": "a1"})
    assert (answer.status, answer.problem) == (403, "role")
    assert "permission denied" in answer.json["detail"]
