"""What the gate makes of a row does not depend on the settings of whoever inserts it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tests.fix_postgres import Cluster
from tests.hostile_settings import HOSTILE, alter_role

THEIRS = {"client_encoding", "exit_on_error", "idle_session_timeout", "lock_timeout", "transaction_timeout"}
"""What harms nobody but the session itself, and would end this test's."""
SOON = datetime.now(UTC) + timedelta(hours=1)
ROWS: list[dict[str, Any]] = [
    {"body": "hello"},
    {"body": "Grüße \\d {2} 'x' \u2028", "metadata": json.dumps({"a": [1, 2.5, None], "when": str(SOON)})},
    {"body": ""},
    {"body": "\u200b\u2800\u00a0"},
    {"body": "Hello {name}, {missing}", "variables": json.dumps({"name": "A\\B {x}"})},
    {"body": "Hello {name|you}, {{ok}}", "variables": json.dumps({})},
    {"body": "Hello {name}"},
    {"body": "x", "recipient": "120363041234567890@g.us"},
    {"body": "x", "recipient": "12036304@gXus"},
    {"body": "x", "recipient": "123456789@lid"},
    {"body": "x", "recipient": "d+4915112345678"},
    {"body": "x", "recipient": "+49 151/1234-5678"},
    {"body": "x", "recipient": "00491511234567"},
    {"body": "x", "recipient": "+4915100000001"},
    {"body": "x", "run_at": SOON, "expires_at": SOON + timedelta(days=1), "priority": 7},
    {"body": "x", "run_at": SOON, "expires_at": SOON - timedelta(days=1)},
    {"body": "x", "dedupe_key": "once", "reference": "r\\1"},
    {"body": "x", "order_group": "g\\1", "campaign": "spring"},
    {"kind": "location", "body": "", "details": json.dumps({"latitude": 52.123456789012345, "longitude": 13})},
    {"kind": "location", "body": "", "details": json.dumps({"latitude": 1e300, "longitude": 13})},
    {"kind": "contact", "body": "", "details": json.dumps({"name": "A\\B", "phone": "+4915112345678"})},
    {"kind": "image", "body": "", "media": "https://example.org/a\\b.png", "file_name": "a\\b.png"},
    {"kind": "document", "body": "", "media": "data:text/plain;base64,eA==", "mime_type": "text/plain"},
    {"kind": "nothing", "body": "x"},
]


def insert(dsn: str, row: dict[str, Any], number: int, session: str) -> dict[str, Any] | tuple[str | None, ...]:
    """The row as its producer then sees it, or the words with which it was refused."""
    columns = {"device_id": "d1", "recipient": f"+4915112{number:06}", **row}
    if "dedupe_key" in columns:
        columns["dedupe_key"] += session
    names, values = (
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )
    statement = sql.SQL("INSERT INTO shardd.jobs ({}) VALUES ({}) RETURNING id").format(names, values)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        try:
            made = connection.execute(statement, list(columns.values())).fetchone()
        except psycopg.Error as error:
            return (error.sqlstate, error.diag.column_name, error.diag.message_primary, error.diag.message_hint)
        assert made is not None
    return {"id": made["id"]}


def rows_of(superuser: psycopg.Connection[Any], ids: list[int]) -> dict[int, dict[str, Any]]:
    with superuser.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT id, to_jsonb(j) - %s::text[] AS job FROM shardd.jobs j WHERE id = ANY (%s)",
            [["id", "created_at", "run_at", "due_at", "ord", "token", "dedupe_key"], ids],
        )
        return {row["id"]: row["job"] for row in cursor.fetchall()}


def test_the_gate_judges_alike_whoever_asks(dsn: str, producer_dsn: str, dbname: str, postgres: Cluster) -> None:
    with psycopg.connect(dsn, autocommit=True) as daemon:
        daemon.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d1', 'sandbox')")
        daemon.execute("INSERT INTO shardd.opt_outs (recipient, source) VALUES ('+4915100000001', 'producer')")
    friendly = [insert(producer_dsn, row, number, "-a") for number, row in enumerate(ROWS)]
    with postgres.superuser(dbname) as superuser:
        alter_role(superuser, "producer", dbname, {n: v for n, v in HOSTILE.items() if n not in THEIRS})
        hostile = [insert(producer_dsn, row, number, "-b") for number, row in enumerate(ROWS)]
        found = rows_of(superuser, [row["id"] for row in friendly + hostile if isinstance(row, dict)])
        told = [row[0] for row in superuser.execute("SELECT data FROM shardd.events WHERE kind = 'job.opted_out'")]
    for row, one, other in zip(ROWS, friendly, hostile, strict=True):
        here, there = (found.get(made["id"]) if isinstance(made, dict) else made for made in (one, other))
        assert here == there, row
    one, other = ({k: v for k, v in data.items() if k != "job_id" and not k.endswith("_at")} for data in told)
    assert one == other
    assert all(value.endswith("Z") for data in told for key, value in data.items() if key.endswith("_at") and value)
    assert sum(isinstance(made, tuple) for made in friendly) > 5
    assert sum(isinstance(made, dict) for made in friendly) > 8


def test_no_function_that_is_read_when_it_is_called_depends_on_what_a_backslash_means(superuser_dsn: str) -> None:
    with psycopg.connect(superuser_dsn) as superuser:
        cursor = superuser.execute(
            "SELECT proname, prosrc FROM pg_proc JOIN pg_language l ON l.oid = prolang "
            "WHERE pronamespace = 'shardd'::regnamespace AND lanname = 'plpgsql'"
        )
        sources = dict(cursor.fetchall())
    assert len(sources) > 15
    spoken = {name: "\n".join(line.partition("--")[0] for line in text.splitlines()) for name, text in sources.items()}
    assert [name for name, text in spoken.items() if "\\" in text] == []
