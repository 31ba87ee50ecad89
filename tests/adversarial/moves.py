"""What a hostile producer does with its rights: rows, opt-outs, campaigns, notifications and statements of every shape.

Each strategy draws a `Move`: something done with a connection of the producer's. What the database refuses is fine as long as it
is refused in words; what it takes must come to a truthful end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from hypothesis import strategies as st
from psycopg import sql

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Move:
    """One thing that the producer does; `name` and `arguments` are what a failing example shows."""

    name: str
    arguments: Any
    act: Callable[[Connection], None]

    def __repr__(self) -> str:
        return f"{self.name}({self.arguments!r:.400})"


# ---- texts

_INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u200b\u200c\u200d\u200e\u202e\u2028\u2060\u2800\u3164\ufe0f\ufeff\uffa0"
    "\U000e0001"
)
_SPACES: Final = " \t\r\n\x0b\x0c\x85\xa0\u1680\u2003\u202f\u205f\u3000"
_NASTY_TEXTS: Final = (
    "", " ", "\x1b[2J\x1b]0;owned\x07", "\x7f\x80\x9f", "{a}" * 3000, "{a|b}", "{{", "}", "{a", "{a|", "{ä}", "%s %(x)s %",
    "'; DROP TABLE shardd.jobs; --", "\\", "\\x00", "null", "NULL", "{}", "[]", "٣٤٥", "é" * 300,
    "\U0001f3f3\ufe0f\u200d\U0001f308" * 50, "a" * 201,
    "a" * 65_536, "a" * 65_537, "\ufdfa" * 70_000, "/marketing", "x/y/marketing", "[red]x[/red]",
    "\u202egnp.exe", "../../etc/passwd",
)  # fmt: skip

texts = st.one_of(
    st.sampled_from(_NASTY_TEXTS),
    st.text(max_size=40),
    st.text(st.sampled_from(_INVISIBLE + _SPACES), max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)

# ---- JSON, as the text that a program writes

_NASTY_JSON: Final = (
    "[]", '"note"', "null", "1", "true", '""', "{}", '{"x":1e4400}', '{"x":-1e4400}', '{"x":1e-4400}', '{"x":' + "9" * 5000 + "}",
    '{"order":99999999999999999999}', '{"n":18446744073709551616}', '{"n":-9223372036854775809}', '{"n":1.7976931348623159e308}',
    "[" * 2000 + "]" * 2000, '{"a":' * 1500 + "1" + "}" * 1500, '{"a":{"a":{"a":{"a":{}}}}}', '{"":""}', '{"a":1,"a":2}',
    '{"' + "k" * 9000 + '":1}', '{"k":"' + "v" * 70_000 + '"}', '{"\\u0000":1}', '{"a":"\\ud800"}', '{"a":"\\u001b[2J"}', "{", "",
    '{"latitude":52,"longitude":13,"x":1e4400}', '{"latitude":"52","longitude":[13]}', '{"latitude":1e400,"longitude":0}',
    '{"latitude":52.5,"longitude":13.4,"name":{"a":1},"address":[1]}', '{"name":"Ada","phone":"+4915112345678"}',
    '{"name":["Ada"],"phone":{"a":"123"}}', '{"name":"\\u200b","phone":"123"}', '{"name":"A\\nEND:VCARD","phone":"123;x\\n"}',
    '{"name":"t","language":"en","components":"x"}', '{"name":"t","language":{"code":1},"components":[[[]]]}',
)  # fmt: skip
_numbers = st.one_of(st.integers(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False))
_documents = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
json_texts = st.one_of(st.sampled_from(_NASTY_JSON), _documents.map(json.dumps))

# ---- other values, as the text that PostgreSQL reads

times = st.sampled_from(
    ["now", "now", "now", "infinity", "-infinity", "epoch", "0001-01-01 BC", "4713-01-01 BC", "294276-12-31 23:59:59+00",
     "2099-12-31 23:59:59+00", "1971-01-01 00:00:00+00", "1970-12-31 23:59:59+00", "tomorrow", "yesterday", "2026-02-30", "x"]
)  # fmt: skip
whole_numbers = st.sampled_from(
    ["0", "1", "-1", "5", "100", "101", "-101", "32767", "32768", "-32768", "1e3", "NaN", "٣", ""]
)
recipients = st.one_of(
    st.sampled_from(
        ["+4915100000001", "004915100000002", "4915100000003", "+49 (0)151 00000004", "123", "+999123456789", "00000000000",
         "+0000000000", "4915100000005@s.whatsapp.net", "4915100000006:2@lid", "1@lid", "12345-67890@g.us", "status@broadcast",
         "+1" * 2000, "+" + "9" * 5000, "(" * 40, "+49\u00a015100000007", "\u200e+4915100000008", "@",
         "٤٩١٥١", "a@c.us", "0@s.whatsapp.net"]
    ),
    texts,
)  # fmt: skip
medias = st.one_of(
    st.sampled_from(
        ["http://127.0.0.1:9/x", "http://[::ffff:127.0.0.1]/x", "http://0x7f.1/x", "http://user:s3cret@localhost/x?k=v",
         "file:///etc/passwd", "/etc/passwd", "../x", "data:,", "data:text/plain,hello", "data:image/png;base64,AAAA",
         "data:image/png;BASE64,iVBORw0KGgo=", "data:audio/ogg;base64,T2dnUw==", "data:" + "a" * 2000 + ",x",
         "data:;base64," + "A" * 1_100_000,
         "https://", "http://[", "ftp://x", "http://x.invalid/" + "a" * 5000, "javascript:alert(1)",
         "data:text/html,<h1>error</h1>", "\x1b[2J"]
    ),
    texts,
)  # fmt: skip


_BASES: Final = (
    {"body": "hostile"},
    {"body": "Hi {name|friend}", "variables": '{"name":"Ada"}'},
    {"kind": "image", "media": "data:image/png;base64,iVBORw0KGgo="},
    {"kind": "voice", "media": "data:audio/ogg;base64,T2dnUw=="},
    {"kind": "document", "media": "data:text/plain,hello", "file_name": "hello.txt"},
    {"kind": "location", "details": '{"latitude":52.5,"longitude":13.4}'},
    {"kind": "contact", "details": '{"name":"Ada","phone":"+4915112345678"}'},
    {"kind": "template", "details": '{"name":"order_sent","language":"en"}'},
)
"""What is as it should be, by kind."""


def jobs(devices: Sequence[str], groups: Sequence[str], campaigns: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    """A row of shardd.jobs that is as it should be but for a few columns, so that it gets past all other checks."""
    kinds = ["text", "image", "video", "audio", "voice", "document", "location", "contact", "template"]
    odd: dict[str, st.SearchStrategy[Any]] = {
        "recipient": recipients,
        "body": texts,
        "device_id": texts,
        "device_group": st.one_of(st.sampled_from(list(groups)), texts),
        "kind": st.one_of(st.sampled_from(kinds), texts),
        "details": json_texts,
        "variables": json_texts,
        "metadata": json_texts,
        "media": medias,
        "file_name": texts,
        "mime_type": st.one_of(st.sampled_from(["image/png", "audio/ogg", "a\r\nb: c", "/"]), texts),
        "class": st.one_of(st.sampled_from(["marketing", "service", "reply"]), texts),
        "campaign": st.one_of(st.sampled_from(list(campaigns)), texts),
        "priority": whole_numbers,
        "run_at": times,
        "expires_at": times,
        "max_attempts": whole_numbers,
        "on_doubt": st.one_of(st.sampled_from(["hold", "retry"]), texts),
        "on_unreadable": st.one_of(st.sampled_from(["resend", "report"]), texts),
        "dedupe_key": texts,
        "order_group": texts,
        "reference": texts,
    }
    sender = st.one_of(
        st.fixed_dictionaries({"device_id": st.sampled_from(list(devices))}),
        st.fixed_dictionaries({"device_group": st.sampled_from(list(groups))}),
    )
    oddities = st.lists(st.sampled_from(sorted(odd)), max_size=3, unique=True).flatmap(
        lambda columns: st.fixed_dictionaries({column: odd[column] for column in columns})
    )
    return st.tuples(sender, st.sampled_from(_BASES), oddities).map(
        lambda parts: {"recipient": "+4915100000009", **parts[0], **parts[1], **parts[2]}
    )


def _insert(table: str, rows: Sequence[dict[str, Any]]) -> sql.Composed:
    """One statement; every value is a text of unknown type, which PostgreSQL reads as it reads anybody's."""
    columns = sorted({column for row in rows for column in row})
    return sql.SQL("INSERT INTO shardd.{} ({}) VALUES {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(
            sql.SQL("({})").format(
                sql.SQL(", ").join(sql.Literal(row[c]) if c in row else sql.SQL("DEFAULT") for c in columns)
            )
            for row in rows
        ),
    )


def _inserts(table: str, rows: st.SearchStrategy[dict[str, Any]], most: int = 3) -> st.SearchStrategy[Move]:
    def move(rows: list[dict[str, Any]]) -> Move:
        return Move(f"insert into {table}", rows, lambda connection: connection.execute(_insert(table, rows)))

    return st.lists(rows, min_size=1, max_size=most).map(move)


def _copies(rows: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Move]:
    def move(row: dict[str, Any]) -> Move:
        def act(connection: Connection) -> None:
            columns = sql.SQL(", ").join(map(sql.Identifier, row))
            with connection.cursor().copy(sql.SQL("COPY shardd.jobs ({}) FROM STDIN").format(columns)) as copy:
                copy.write_row(list(row.values()))

        return Move("copy", row, act)

    return rows.map(move)


# ---- notifications

_CHANNELS: Final = (
    "shardd_jobs",
    "shardd_devices",
    "shardd_campaigns",
    "shardd_leases",
    "shardd_work",
    "shardd_events",
    "shardd_producers",
    "other",
)


def _notifications(devices: Sequence[str]) -> st.SearchStrategy[Move]:
    big = st.sampled_from([0, -1, 1, -(2**63), 2**63 - 1, 2**63, 10**30])
    hint = st.tuples(
        st.one_of(st.sampled_from(list(devices)), texts),
        st.one_of(st.sampled_from(["/marketing", "c1/reply", "nope/marketing"]), texts),
        *(big, big),
    ).map(json.dumps)
    payload = st.one_of(hint, hint, json_texts, texts).map(lambda text: text.replace("\0", "")[:1900])

    def move(drawn: tuple[str, list[str], int]) -> Move:
        channel, payloads, times_each = drawn

        def act(connection: Connection) -> None:
            for one in payloads:
                connection.execute(
                    "SELECT pg_notify(%s, %s || repeat(' ', n)) FROM generate_series(1, %s) n",
                    (channel, one, times_each),
                )

        return Move("notify", drawn, act)

    return st.tuples(
        st.sampled_from(_CHANNELS), st.lists(payload, min_size=1, max_size=5), st.sampled_from([1, 1, 50])
    ).map(move)


# ---- statements that a producer has no business with

_STATEMENTS: Final = (
    "UPDATE shardd.jobs SET priority = 100",
    "DELETE FROM shardd.jobs",
    "TRUNCATE shardd.jobs CASCADE",
    "DELETE FROM shardd.opt_outs",
    "UPDATE shardd.campaigns SET state = 'cancelled'",
    "SELECT * FROM shardd.devices",
    "INSERT INTO shardd.outbox (kind) VALUES ('job.sent')",
    "SELECT shardd.end_jobs(array(SELECT id FROM shardd.outcomes), 'cancelled', 'x', 'x')",
    "SELECT shardd.prepare_archive()",
    "SELECT shardd.purge_events('0', 0, 100000)",
    "SELECT set_config('shardd.maintains_outbox', 'yes', false)",
    "SELECT set_config('search_path', 'pg_temp', false)",
    "SELECT set_config('datestyle', 'German', false)",
    "SELECT set_config('session_replication_role', 'replica', false)",
    "CREATE TEMP TABLE jobs (id integer)",
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_catalog.length(VALUE) < 0)",
    "CREATE TABLE shardd.mine (id integer)",
    "CREATE TABLE public.jobs (id integer)",
    "LOCK TABLE shardd.jobs IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE shardd.campaigns IN ACCESS EXCLUSIVE MODE",
    "SELECT id FROM shardd.jobs FOR UPDATE",
    "SELECT pg_advisory_lock_shared(hashtextextended('shardd.migrations', 0))",
    "SELECT pg_try_advisory_lock(hashtext('shardd.announce_jobs'))",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT * FROM shardd.read_events('9-9', -1, '{%}')",
    "SELECT * FROM shardd.read_events('x')",
    "SELECT count(*) FROM shardd.outcomes",
    "SELECT count(*) FROM shardd.read_events(NULL, 1000)",
    "EXPLAIN SELECT * FROM shardd.events",
    "INSERT INTO shardd.jobs DEFAULT VALUES",
    "INSERT INTO shardd.opt_outs DEFAULT VALUES",
    "MERGE INTO shardd.jobs USING (VALUES (1)) v(id) ON false WHEN MATCHED THEN DELETE",
)
_statements = st.sampled_from(_STATEMENTS).map(
    lambda text: Move("run", text, lambda connection: connection.execute(text.encode()))
)


def _rolled_back(inner: st.SearchStrategy[Move]) -> st.SearchStrategy[Move]:
    """Moves in one transaction that comes to nothing."""

    def move(moves: list[Move]) -> Move:
        def act(connection: Connection) -> None:
            with connection.transaction(force_rollback=True):
                for one in moves:
                    with connection.transaction():
                        one.act(connection)

        return Move("roll back", moves, act)

    return st.lists(inner, min_size=1, max_size=3).map(move)


def moves(devices: Sequence[str], groups: Sequence[str], campaigns: Sequence[str]) -> st.SearchStrategy[list[Move]]:
    """A handful of moves; the ids are of what exists."""
    rows = jobs(devices, groups, campaigns)
    opt_outs = st.fixed_dictionaries(
        {"recipient": recipients}, optional={"note": texts, "source": texts, "address": texts}
    )
    terms = st.fixed_dictionaries(
        {"id": texts},
        optional={
            "label": texts,
            "weight": st.sampled_from(["0", "1", "NaN", "Infinity", "1e-300", "1000", "1001", "-1", "x"]),
            "device_cap": whole_numbers,
            "state": texts,
        },
    )
    inserts = _inserts("jobs", rows)
    others = st.one_of(
        _inserts("opt_outs", opt_outs),
        _inserts("campaigns", terms),
        _copies(rows),
        _notifications(devices),
        _statements,
    )
    return st.lists(st.one_of(inserts, inserts, others, others, _rolled_back(inserts)), min_size=1, max_size=8)
