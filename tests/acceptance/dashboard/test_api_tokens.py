"""Tokens and errors: who is let in, and what the others are told."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.fixtures.api import HELLO, MakeProgram
from tests.support.api import Program
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer


async def test_a_removed_or_expired_token_ends_at_once(
    daemon: Daemon, producer: Producer, make_program: MakeProgram
) -> None:
    first, second = await make_program("look"), await make_program("look", "--expires=1h")
    for program in (first, second):
        assert (await program.get("/status")).status == 200
    assert (await Command(daemon.config_file)("token", "remove", "look-1")).code == 0
    producer.execute("UPDATE shardd.api_tokens SET expires_at = now() - interval '1 second' WHERE name = 'look-2'")
    for program, words in ((first, "is not known"), (second, "has expired")):
        answer = await program.get("/status")
        assert (answer.status, answer.problem) == (401, "bad-token")
        assert words in answer.json["detail"]
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="shardd", error="invalid_token"'
    listed = (await Command(daemon.config_file)("token", "list", "--json")).json
    assert [(row["name"], row["used_at"] is not None) for row in listed] == [("look-2", True)]


async def test_each_token_does_only_what_it_is_for(
    devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    look, operate, send = [await make_program(may) for may in ("look", "operate", "send")]
    assert (await look.get("/devices")).status == (await operate.get("/devices")).status == 200
    refused = [
        (look, "POST", "/jobs", HELLO),
        (look, "POST", "/devices/d1/pause", None),
        (operate, "POST", "/jobs", HELLO),
        (send, "GET", "/devices", None),
        (send, "GET", "/status", None),
        (send, "GET", "/opt-outs", None),
        (send, "POST", "/devices/d1/pause", None),
        (send, "POST", "/jobs/1/cancel", None),
    ]
    for program, method, path, body in refused:
        answer = await program.ask(method, f"/api/v1{path}", body)
        assert (answer.status, answer.problem) == (403, "not-allowed"), path
        assert "and this is for one that may" in answer.json["detail"]
    assert producer.execute("SELECT count(*) FROM shardd.all_outcomes") == [(0,)]
    assert producer.execute("SELECT count(*) FROM shardd.devices WHERE paused_at IS NOT NULL") == [(0,)]


async def test_a_token_in_the_address_is_refused_even_beside_a_good_one(make_program: MakeProgram) -> None:
    program, nobody = await make_program("look"), await make_program(None)
    for path in (f"/status?token={program.token}", f"/jobs?reference={program.token}", "/status?access_token=x"):
        for one in (program, nobody):
            answer = await one.get(path)
            assert (answer.status, answer.problem) == (400, "token-in-address"), path
            assert "replace it" in answer.json["detail"]
            assert program.token not in answer.text


async def test_neither_a_cookie_nor_another_site_gets_an_answer(daemon: Daemon, make_program: MakeProgram) -> None:
    nobody, look = await make_program(None), await make_program("look")
    for headers in ({}, {"Cookie": "shardd=anything"}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}):
        answer = await nobody.get("/status", headers=headers)
        assert (answer.status, answer.problem) == (401, "no-token")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="shardd"'
        assert "Set-Cookie" not in answer.headers
    other = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = await look.ask(method, "/api/v1/status", headers=other)
        assert not any(name.lower().startswith("access-control") for name in answer.headers)
    # And a token opens no page.
    page = await look.ask("GET", "/devices")
    assert page.status == 401
    assert "Sign in" in page.text


async def test_paths_and_methods_that_are_not_there(make_program: MakeProgram) -> None:
    look, nobody = await make_program("look"), await make_program(None)
    for path in (
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v2/jobs",
        "/api/v1/jobs/x",
        "/api/v1/../overview",
        "/api/v1//jobs",
    ):
        answer = await look.ask("GET", path)
        assert (answer.status, answer.problem) == (404, "not-found"), path
        assert (await nobody.ask("GET", path)).status == 401
    for method, path, allowed in (
        ("DELETE", "/jobs", "GET, POST"),
        ("PUT", "/devices/d1/pause", "POST"),
        ("POST", "/status", "GET"),
    ):
        answer = await look.ask(method, f"/api/v1{path}")
        assert (answer.status, answer.problem) == (405, "method")
        assert answer.headers["Allow"] == allowed
    for path, words in (
        ("/devices/d1x", "device d1x is unknown"),
        ("/campaigns/winter", "campaign winter is unknown"),
        ("/jobs/999999999999999999", "job 999999999999999999 is unknown"),
        ("/problems/nothing", "there is no problem nothing"),
    ):
        answer = await look.get(path)
        assert (answer.status, answer.problem) == (404, "not-found")
        assert answer.json["detail"].startswith(words)


async def test_parameters_are_named_with_what_belongs_there(make_program: MakeProgram) -> None:
    look, send = await make_program("look"), await make_program("send")
    for program, path, words in (
        (look, "/jobs?limit=0", "limit is 0: write a whole number from 1 to 1,000"),
        (look, "/jobs?limit=many", "limit is many: write a whole number from 1 to 1,000"),
        (look, "/jobs?state=done", "state is done: write one of "),
        (look, "/jobs?stat=sent", "stat is unknown: did you mean state?"),
        (look, "/jobs?state=sent&state=failed", "state is given twice"),
        (look, "/jobs?dedupe_key=x", "dedupe_key is not a filter of a token that may look"),
        (send, "/jobs?state=sent", "state is not a filter of a token that may send"),
        (send, "/events?kinds=job.snt", "kinds: job.snt"),
        (send, "/events?after=7", "after is 7"),
    ):
        answer = await program.get(path)
        assert (answer.status, answer.problem) == (400, "malformed"), path
        assert answer.json["detail"].startswith(words), answer.json
        assert answer.json["field"] == words.split()[0].rstrip(":")


async def test_a_body_of_another_type_or_size_is_refused(program: Program) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
    ):
        answer = await program.post("/jobs", HELLO, headers=headers)
        assert (answer.status, answer.problem) == (415, "media-type"), headers
    large = await program.post("/jobs", [HELLO | {"body": "x" * 60_000}] * 200)
    assert (large.status, large.problem) == (413, "too-large")
    assert (await program.get("/jobs")).json["jobs"] == []


async def test_an_address_that_invents_tokens_all_the_time_keeps_no_good_one_waiting(
    make_program: MakeProgram,
) -> None:
    numbers, is_flood = itertools.count(), asyncio.Event()

    async def invent(wrong: Program) -> None:
        while True:
            answer = await wrong.get("/status", headers={"Authorization": f"Bearer shardd_{next(numbers):043}"})
            assert (answer.status, answer.problem) == (401, "bad-token")
            if next(numbers) > 100:
                is_flood.set()

    strangers = [await make_program(None) for _ in range(8)]
    async with asyncio.TaskGroup() as inventing:
        tasks = [inventing.create_task(invent(one)) for one in strangers]
        await is_flood.wait()
        for _ in range(3):
            good = await make_program("look")
            assert (await good.get("/status")).status == 200
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("name", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(make_program: MakeProgram, name: str) -> None:
    look = await make_program("look")
    assert (await look.get("/status", headers={"Authorization": f"{name} {look.token}"})).status == 200
