"""Every job that PostgreSQL refuses is refused by JSON, too, with the same words and the name of the same column."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
import pytest

from tests.fixtures.api import HELLO
from tests.integration.queue.migrations.test_schema import DEVICES, REFUSALS, insert
from tests.integration.queue.migrations.test_values import JSON_LIMITS, UNFIT, nested
from tests.support.api import Program
from tests.support.daemon import Producer

BASE = {"device_id": "a", "recipient": "+6281234567890", "body": "hello"}

FIELDS = (
    ("body", 7, "body is 7: write a text or null"),
    ("priority", "high", 'priority is "high": write a whole number from -32,768 to 32,767 or null'),
    ("priority", 70000, "priority is 70000: write a whole number from -32,768 to 32,767 or null"),
    (
        "run_at",
        "2027-01-01T09:00:00",
        'run_at is "2027-01-01T09:00:00": write a time with a time zone, such as 2027-01-31T09:00:00Z or null',
    ),
    ("recipent", "+4915112345678", "recipent is unknown: did you mean recipient?"),
    ("id", 1, "id is unknown"),
    ("producer", "alpha", "producer is unknown"),
)
"""(field, value, the words of the refusal)"""
BODIES = (
    (b"", 400, "the body is not JSON"),
    (b"{", 400, "the body is not JSON"),
    (b"[{}, {]", 400, "the body is not JSON"),
    (b'"x"', 422, "the body is not an object"),
    (b"[[]]", 422, "entry 0 of the list is not an object"),
    (b"[" * 100_000, 400, "the body is not JSON"),
    (b'{"device_id": "d1", "recipient": "+4915112345678", "body": "\xff"}', 422, "body is"),
    (
        b'{"device_id": "d1", "recipient": "+4915112345678", "body": "a\\u0000b"}',
        422,
        "body has the character U+0000",
    ),
    (b'{"device_id": "d1", "recipient": "+4915112345678", "body": "a", "body": "b"}', 422, "body is given twice"),
    (b'[{"device_id": "d1", "device\\u005fid": "d2"}]', 422, "device_id is given twice"),
    (b'{"device_id": "d1", "metadata": {"a": {"k": 1, "k": 2}}}', 422, "k is given twice"),
)
"""(body, status, some of the words)"""


@pytest.fixture
def rows(producer: Producer, devices: None, dsn: str) -> None:
    with psycopg.connect(dsn) as owner:
        owner.execute(DEVICES)


def words_of_sql(dsn: str, fields: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """What an INSERT of a producer is told: all of it, the column, and the hint."""
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.Error) as caught:
        insert(connection, **fields)
    told = caught.value.diag
    parts = (told.message_primary, told.message_detail, told.message_hint)
    return ". ".join(part.rstrip(".") for part in parts if part), told.column_name, told.message_hint


def as_json(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in fields.items()}


async def test_whatever_sql_refuses_is_refused_in_the_same_words(
    program: Program, rows: None, producer_dsn: str, producer: Producer
) -> None:
    ours = 0
    for fields, *_ in REFUSALS:
        answer = await program.post("/jobs", [HELLO, as_json(BASE | fields)])
        assert answer.status == 422, (fields, answer)
        assert answer.json["index"] == 1
        if answer.problem == "invalid":  # JSON has types, and times have time zones
            ours += 1
            assert answer.json["field"] in fields
            assert answer.json["fix"].startswith("write ")
            continue
        words, column, hint = words_of_sql(producer_dsn, fields)
        assert (answer.json["detail"], answer.json.get("field"), answer.json.get("fix")) == (words, column, hint)
    assert len(REFUSALS) - ours > 150, "most reach the database"
    assert producer.execute("SELECT count(*) FROM shardd.all_outcomes") == [(0,)]


async def test_json_that_cannot_be_carried_is_refused_in_the_same_words(
    program: Program, rows: None, producer_dsn: str
) -> None:
    refused = 0
    for column, text in itertools.product(JSON_LIMITS, UNFIT):
        if text == "null":
            continue  # in JSON, that is NULL
        body = b'{"device_id": "a", "recipient": "+6281234567890", "body": "hello", "%s": %s}' % (
            column.encode(),
            text.encode(),
        )
        answer = await program.post("/jobs", body)
        if text.count("[") > 1000:
            assert answer.problem in ("malformed", "refused"), answer
            continue
        statement = f"INSERT INTO shardd.jobs (device_id, recipient, body, {column}) VALUES (%s, %s, %s, %s)"
        with psycopg.connect(producer_dsn) as connection, pytest.raises(psycopg.Error) as caught:
            connection.execute(statement.encode(), [*BASE.values(), text])
        assert answer.status == 422, (text, answer)
        assert answer.json["detail"].startswith(str(caught.value.diag.message_primary).rstrip(".")), text
        assert answer.json["field"] == column
        refused += 1
    assert refused > 10 * len(JSON_LIMITS)


async def test_what_is_carried_arrives_to_the_last_digit(program: Program, rows: None, producer: Producer) -> None:
    metadata = b'{"order": 18446744073709551615, "price": 0.1000, "nested": %s}' % nested(30).encode()
    answer = await program.post(
        "/jobs", b'{"device_id": "a", "recipient": "+6281234567890", "body": "hello", "metadata": %s}' % metadata
    )
    assert answer.status == 201, answer
    ((stored,),) = producer.execute("SELECT metadata = %s::jsonb FROM shardd.all_outcomes", metadata.decode())
    assert stored is True
    number = answer.json["jobs"][0]["id"]
    assert (await program.get(f"/jobs/{number}")).json["metadata"]["order"] == 18446744073709551615


async def test_a_nul_inside_of_json_is_named_with_its_place(program: Program) -> None:
    for given, place in (
        ({"x": {"y": "a\0b"}}, "metadata.x.y"),
        ({"a": 1, "x": [1, {"y": ["\0"]}]}, "metadata.x.y"),
        ({"x": {"\0": 1}}, "metadata.x"),
    ):
        answer = await program.post("/jobs", [HELLO, HELLO | {"metadata": given}])
        assert (answer.status, answer.problem) == (422, "invalid"), answer
        assert (answer.json["index"], answer.json["field"]) == (1, place), answer
        assert answer.json["detail"].startswith(f"{place} has the character U+0000")
    escaped = await program.post("/jobs", HELLO | {"metadata": {"x": "\\u0000"}})
    assert escaped.status == 201, escaped


async def test_a_field_of_another_type_or_name_is_named(program: Program) -> None:
    for field, value, words in FIELDS:
        answer = await program.post("/jobs", [HELLO, HELLO | {field: value}])
        assert (answer.status, answer.problem) == (422, "invalid"), field
        assert answer.json["detail"].startswith(words)
        assert (answer.json["index"], answer.json["field"]) == (1, field)


async def test_a_job_without_any_field_is_refused_as_sql_refuses_it(program: Program, producer: Producer) -> None:
    alone, second = await program.post("/jobs", {}), await program.post("/jobs", [HELLO, {}])
    for answer, index in ((alone, 0), (second, 1)):
        assert (answer.status, answer.problem) == (422, "refused"), answer
        assert (answer.json["field"], answer.json["index"]) == ("device_id", index), answer
        assert "device_id and device_group are empty" in answer.json["detail"]
    assert producer.execute("SELECT count(*) FROM shardd.all_outcomes") == [(0,)]


async def test_what_is_no_job_is_said_so(program: Program) -> None:
    for body, status, words in BODIES:
        answer = await program.post("/jobs", body)
        assert answer.status == status, (body[:80], answer)
        assert words in answer.json["detail"]
