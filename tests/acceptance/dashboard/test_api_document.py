"""The OpenAPI document is valid, and what a real daemon answers is what it says, for every operation there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from shardd.dashboard.api.serving import MOST_BODY
from tests.fixtures.api import HELLO, MakeProgram
from tests.support.api import Answer
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.raw_http import exchange, statuses

ALL_FAILED = {"state": "failed", "snapshot": "1:1:"}


def check(document: dict[str, Any], operation: dict[str, Any], answer: Answer) -> None:
    """The status is a documented one, and the body has its form."""
    described = operation["responses"][str(answer.status)]
    content = described["content"][answer.headers["Content-Type"].partition(";")[0]]
    schema = {**content["schema"], "components": document["components"]}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(answer.json)


async def test_every_operation_answers_as_the_document_says(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    shardd = Command(daemon.config_file)
    assert (await shardd("campaign", "add", "spring")).code == 0
    assert (await shardd("opt-out", "add", "+4915112345679")).code == 0
    programs = {may: await make_program(may) for may in ("look", "operate", "send")}
    producer.execute("INSERT INTO shardd.devices (id, transport, state) VALUES ('shop', 'whatsapp', 'unpaired')")
    document = (await programs["look"].get("/openapi.json")).json
    OpenAPIV31SpecValidator(document).validate()
    sent = (await programs["send"].post("/jobs", HELLO)).json["jobs"][0]["id"]
    await producer.until_finished(daemon, 1)
    known = {"settled_at": (await programs["look"].get(f"/jobs/{sent}")).json["settled_at"]}
    bodies: dict[str, Any] = {
        "insert_jobs": [HELLO | {"dedupe_key": "1"}] * 2,
        "retry_job": known,
        "resolve_job": {"sent": True} | known,
        "retry_jobs": ALL_FAILED,
        "cancel_jobs": ALL_FAILED,
        "resolve_jobs": {"sent": True} | ALL_FAILED,
        "revoke_jobs": ALL_FAILED,
        "add_campaign": {"id": "autumn"},
        "make_pairing_links": {"devices": ["shop"]},
        "set_campaign": {"weight": 2},
        "pause_device": {"why": "new phone"},
        "add_opt_out": {"recipient": "+4915112345670"},
    }
    parts = {
        "job": str(sent),
        "device": "d1",
        "campaign": "spring",
        "webhook": "crm",
        "problem": "refused",
        "shard": "0",
    }
    called: dict[str, set[int]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation["operationId"] == "follow_events":
                continue  # an answer without an end: test_api_stream
            where = f"/api/v1{path.format(**parts)}"
            if operation["operationId"].startswith("count_jobs_to_"):
                where += "?state=failed"
            for may, program in programs.items():
                body = bodies.get(operation["operationId"])
                answer = await program.ask(method.upper(), where, body)
                check(document, operation, answer)
                allowed = f"`{may}`" in operation["description"].rpartition("For tokens")[2]
                assert (answer.status == 403) is not allowed, (path, may, answer)
                called.setdefault(operation["operationId"], set()).add(answer.status)
            colourful = f"{where}{'&' if '?' in where else '?'}colour=red"
            unknown = await programs["operate"].ask(method.upper(), colourful, body)
            assert unknown.status in (400, 403)
            check(document, operation, unknown)
    # A job that is sent is neither retried nor cancelled, and there are no webhooks; all else can be done.
    conflicts, missing = {"retry_job", "cancel_job"}, {"list_webhook_failures", "retry_webhook"}
    assert {name for name, statuses in called.items() if not statuses & {200, 201}} == conflicts | missing
    assert all(409 in called[name] for name in conflicts)
    assert all(404 in called[name] for name in missing)
    assert len(called) > 20


def faults(method: str, *, has_body: bool) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(status, method, how it is asked): requests that are wrong in one way each."""
    yield 401, method, {"headers": {"Authorization": "Basic YTpi"}}
    yield 401, method, {"headers": {"Authorization": f"Bearer shardd_{'a' * 43}"}}
    yield 421, method, {"headers": {"Host": "evil.example"}}
    yield 400, method, {"query": "?token=x"}
    yield 400, method, {"query": "?colour=red"}
    yield 405, "DELETE" if method != "DELETE" else "PUT", {}
    if not has_body:
        yield 400, method, {"body": b"{}"}
        return
    yield 413, method, {"body": b" " * (MOST_BODY + 1)}
    yield 415, method, {"body": b"{}", "headers": {"Content-Type": "text/plain"}}
    yield 415, method, {"body": b"{}", "headers": {"Content-Encoding": "gzip"}}
    yield 400, method, {"body": b"{"}
    yield 422, method, {"body": b'{"colour": "red"}'}
    yield 422, method, {"body": b"[1]"}


async def test_what_is_asked_wrongly_is_answered_as_the_document_says(
    daemon: Daemon, devices: None, make_program: MakeProgram
) -> None:
    programs = {may: await make_program(may) for may in ("operate", "send")}
    document = (await programs["send"].get("/openapi.json")).json
    parts = {"job": "1", "device": "d1", "campaign": "spring", "webhook": "crm", "problem": "refused", "shard": "0"}
    seen: set[int] = set()
    for path, operations in document["paths"].items():
        where = f"/api/v1{path.format(**parts)}"
        for method, operation in operations.items():
            program = programs["send" if operation["operationId"] == "insert_jobs" else "operate"]
            for status, asked, options in faults(method.upper(), has_body="requestBody" in operation):
                answer = await program.ask(
                    asked, where + options.pop("query", ""), options.pop("body", None), **options
                )
                assert answer.status == status, (path, options, answer)
                check(document, operation, answer)
                seen.add(answer.status)
            for head in (b"GET / HTTP/9.9", f"{method.upper()} {where} HTTP/1.1\r\nX: {'a' * 9000}".encode()):
                host, _, port = daemon.settings["dashboard"]["listen"].rpartition(":")
                raw = await exchange((host, int(port)), head + b"\r\nHost: 127.0.0.1\r\n\r\n")
                assert statuses(raw) == [400]
                assert b"text/plain" in raw
                assert "text/plain" in operation["responses"]["400"]["content"]
            odd = await program.ask("GET", f"{where}/nothing/here", headers={"Expect": "the unexpected"})
            assert (odd.status, odd.problem) == (404, "not-found")
    assert seen == {400, 401, 405, 413, 415, 421, 422}


async def test_what_is_looked_at_is_what_the_commands_print(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    shardd = Command(daemon.config_file)
    assert (await shardd("campaign", "add", "spring", "--label=Spring")).code == 0
    assert (await shardd("opt-out", "add", "+4915112345679", "--note=by phone")).code == 0
    producer.add_jobs(2, 1)
    await producer.until_finished(daemon, 2)
    look = await make_program("look")
    asked = {
        "/jobs": ("jobs", ["job", "list"]),
        "/devices": ("devices", ["device", "list"]),
        "/campaigns": ("campaigns", ["campaign", "list"]),
        "/opt-outs": ("opt_outs", ["opt-out", "list"]),
        "/webhooks": ("webhooks", ["webhook", "list"]),
        "/nodes": (None, ["cluster", "list"]),
        "/devices/d1": (None, ["device", "show", "d1"]),
        "/campaigns/spring/progress": (None, ["campaign", "show", "spring"]),
    }
    for path, (member, command) in asked.items():
        answer = (await look.get(path)).json
        told = answer if member is None else answer[member]
        printed = (await shardd(*command, "--json")).json
        assert _still(told) == _still(printed), path
        assert told or path == "/webhooks"
    number = (await look.get("/jobs?limit=1")).json["jobs"][0]["id"]
    assert (await look.get(f"/jobs/{number}")).json == (await shardd("job", "show", number, "--json")).json


def _still(value: Any) -> Any:
    """Without what changes from moment to moment."""
    if isinstance(value, dict):
        return {
            name: _still(one) for name, one in value.items() if name not in ("seen_at", "summary", "next", "counted_at")
        }
    return [_still(one) for one in value] if isinstance(value, list) else value


async def test_pages_of_jobs_and_devices_go_on_where_the_last_ended(
    daemon: Daemon, producer: Producer, make_program: MakeProgram
) -> None:
    producer.add_devices(5)
    producer.add_jobs(5, 1)
    await producer.until_finished(daemon, 5)
    look = await make_program("look")
    devices, after = [], ""
    while True:
        page = (await look.get(f"/devices?limit=2{after}")).json
        devices += [device["id"] for device in page["devices"]]
        if page["later"] is None:
            break
        after = f"&after={page['later']}"
    assert devices == ["d1", "d2", "d3", "d4", "d5"]
    jobs: list[int] = []
    before = ""
    while True:
        page = (await look.get(f"/jobs?limit=2&device=d1{before}")).json
        jobs += [job["id"] for job in page["jobs"]]
        if page["older"] is None:
            break
        before = f"&before={page['older']}"
    assert len(jobs) == 5
    assert jobs == sorted(jobs, reverse=True)
