"""What no column takes, from whoever writes it: JSON that a process of shardd could not carry, text without anything to see, and
more than fits, which is refused before anything long is done with it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from tests.fixtures.postgres import TEMPLATE, Cluster

Connection = psycopg.Connection[Any]

KINDS = {
    "text": {"body": "hello"},
    **{kind: {"media": "https://x/y", "body": ""} for kind in ("image", "video", "audio", "voice", "document")},
    "location": {"body": "", "details": '{"latitude": 52, "longitude": 13}'},
    "contact": {"body": "", "details": '{"name": "Ada", "phone": "+4915112345678"}'},
    "template": {"body": "", "details": '{"name": "order_sent", "language": "en_US"}'},
}
JSON_LIMITS = {"details": 8192, "variables": 65536, "metadata": 8192}


def nested(levels: int) -> str:
    return '{"a": ' * levels + "1" + "}" * levels


UNFIT = {
    # what PHP makes of an empty array
    "[]": "is a JSON array, not an object",
    '"note"': "is a JSON string, not an object",
    "7": "is a JSON number, not an object",
    "1e4400": "is a JSON number, not an object",
    "true": "is a JSON boolean, not an object",
    "null": "is a JSON null, not an object",
    '["' + "x" * 5000 + '"]': "is a JSON array, not an object",
    '{"x": 1e4400}': "has the number 1000000000000000000000000000000000000000…, which is out of range",
    '{"x": -1e19}': "has the number -10000000000000000000, which is out of range",
    '{"order": 99999999999999999999}': "has the number 99999999999999999999, which is out of range",
    '{"x": [{"y": [18446744073709551616]}]}': "has the number 18446744073709551616, which is out of range",
    '{"x": -9223372036854775809}': "has the number -9223372036854775809, which is out of range",
    '{"x": 1e-4400}': "has the number 0.00000000000000000000000000000000000000…, which is out of range",
    '{"x": -1e-301}': "has the number -0.0000000000000000000000000000000000000…, which is out of range",
    nested(33): "is nested in more than 32 levels",
    '{"a": ' + "[" * 4000 + "]" * 4000 + "}": "is nested in more than 32 levels",
    # A few bytes, of which each number has 131,072 digits.
    '{"x": [' + ", ".join(["1e131071"] * 600) + "]}": "out of range",
}


@pytest.fixture(scope="module")
def module_dbname(cluster: Cluster) -> Iterator[str]:
    name = cluster.create_database(TEMPLATE)
    with psycopg.connect(cluster.dsn(name)) as connection:
        connection.execute(
            "INSERT INTO shardd.devices (id, transport) VALUES ('a', 'sandbox'); INSERT INTO shardd.campaigns (id) VALUES ('c')"
        )
    yield name
    cluster.drop_database(name)


def connected(dsn: str) -> Iterator[Connection]:
    """What is done is rolled back. A statement that takes long is ended, and its test red."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET statement_timeout = '20s'")
        yield connection
        connection.rollback()


@pytest.fixture
def producer(module_dbname: str, cluster: Cluster) -> Iterator[Connection]:
    yield from connected(cluster.dsn(module_dbname, "producer"))


@pytest.fixture
def owner(module_dbname: str, cluster: Cluster) -> Iterator[Connection]:
    yield from connected(cluster.dsn(module_dbname))


def insert(connection: Connection, table: str = "jobs", **fields: Any) -> None:
    values = {"device_id": "a", "recipient": "+6281234567890", "body": "hello", **fields} if table == "jobs" else fields
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier("shardd", table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
    )
    connection.execute(statement, list(values.values()))


def refused(caught: pytest.ExceptionInfo[errors.CheckViolation], table: str, column: str) -> str:
    """The words, which stand in one line."""
    told = caught.value.diag
    assert (told.schema_name, told.table_name, told.column_name) == ("shardd", table, column)
    assert told.message_hint
    words = told.message_primary or ""
    assert len(words) < 200
    assert "\n" not in words
    return words


# ---- JSON


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", JSON_LIMITS)
def test_json_that_cannot_be_carried_is_refused_for_every_kind(producer: Connection, kind: str, column: str) -> None:
    for text, words in UNFIT.items():
        with pytest.raises(errors.CheckViolation) as caught, producer.transaction():
            insert(producer, **{"kind": kind, **KINDS[kind], column: text})
        assert words in refused(caught, "jobs", column)


@pytest.mark.parametrize("column", JSON_LIMITS)
def test_an_update_is_held_to_the_same(owner: Connection, column: str) -> None:
    insert(owner)
    for text, words in UNFIT.items():
        with pytest.raises(errors.CheckViolation) as caught, owner.transaction():
            owner.execute(sql.SQL("UPDATE shardd.jobs SET {} = %s").format(sql.Identifier(column)), [text])
        assert words in refused(caught, "jobs", column)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("body = E'\\u200b'", "body"),
        ("kind = 'fax'", "kind"),
        ("kind = 'image'", "media"),
        ("kind = 'location'", "details"),
    ],
)
def test_an_update_leaves_what_its_kind_needs(owner: Connection, change: str, column: str) -> None:
    insert(owner)
    with pytest.raises(errors.CheckViolation) as caught:
        owner.execute(f"UPDATE shardd.jobs SET {change}")  # type: ignore[call-overload]  # the changes above
    refused(caught, "jobs", column)


@pytest.mark.parametrize("column", ["settings", "classes"])
def test_a_device_is_held_to_the_same(owner: Connection, column: str) -> None:
    for text, words in UNFIT.items():
        with pytest.raises(errors.CheckViolation) as caught, owner.transaction():
            insert(owner, "devices", id="b", transport="sandbox", **{column: text})
        assert words in refused(caught, "devices", column)
        with pytest.raises(errors.CheckViolation) as caught, owner.transaction():
            owner.execute(sql.SQL("UPDATE shardd.devices SET {} = %s").format(sql.Identifier(column)), [text])
        assert words in refused(caught, "devices", column)


@pytest.mark.parametrize("column", JSON_LIMITS)
def test_json_may_be_as_large_as_is_said(producer: Connection, column: str) -> None:
    most = JSON_LIMITS[column]
    fields, begin, end = {}, '{"x": ', "}"
    if column == "details":  # a template's components are the only part of details that may have any content
        fields = {"kind": "template", "body": ""}
        begin, end = '{"name": "order_sent", "language": "en_US", "components": [', "]}"
    for value in (
        '"' + "y" * (most - len(begin) - len(end) - 2) + '"',
        nested(31 - begin.count("[")),
        '{"a": 18446744073709551615, "b": -9223372036854775808, "c": 1e-300, "d": 1.5e19, "e": 0e-4400}',
    ):
        insert(producer, **fields, **{column: begin + value + end})
    with pytest.raises(errors.CheckViolation, match=f"{column} is too long"):
        insert(producer, **fields, **{column: begin + '"' + "y" * most + '"' + end})


def test_what_jsonb_itself_cannot_hold_is_refused_by_it(producer: Connection) -> None:
    for text in (r'{"a": "\u0000"}', r'{"a": "\ud800"}', '{"a": NaN}', "[" * 100_000, '{"a": 1e200000}'):
        with pytest.raises((errors.DataError, errors.StatementTooComplex)), producer.transaction():
            insert(producer, metadata=text)


# ---- text with nothing to see

INVISIBLE = {
    "spaces": " \t\r\n\v\f", "NBSP": "\u00a0", "soft hyphen": "\u00ad", "grapheme joiner": "\u034f",
    "Arabic letter mark": "\u061c",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0", "Ogham space": "\u1680", "Khmer vowels": "\u17b4\u17b5",
    "Mongolian selectors": "\u180b\u180c\u180d\u180e\u180f", "zero width": "\u200b\u200c\u200d\u2060\ufeff",
    "marks of direction": "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    "line separators": "\u2028\u2029\u0085",
    "wide spaces": "\u2000\u2003\u200a\u202f\u205f\u3000", "invisible operators": "\u2061\u2062\u2063\u2064",
    "deprecated format characters": "\u206a\u206f", "Braille without a dot": "\u2800",
    "variation selectors": "\ufe00\ufe0f\U000e0100",
    "tags": "\U000e0001\U000e0020\U000e007f", "shorthand controls": "\U0001bca0\U0001bca3", "beams": "\U0001d173\U0001d17a",
    "control characters": "\x01\x1b\x7f\x9f", "specials": "\ufff0\ufff8",
}  # fmt: skip


@pytest.mark.parametrize("words", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_a_text_with_nothing_to_see_is_empty(producer: Connection, words: str) -> None:
    contact, template = '{"name": "%s", "phone": "123"}', '{"name": "%s", "language": "en"}'
    escaped = "".join(f"\\u{unit:04x}" for unit in memoryview(words.encode("utf-16-le")).cast("H"))
    rows: list[tuple[str, dict[str, Any]]] = [
        ("body", {"body": words}),
        ("body", {"body": words * 2000}),
        ("body", {"body": "{name}{name}", "variables": f'{{"name": "{escaped}"}}'}),
        ("body", {"body": f"{words}{{name|{words}}}", "variables": "{}"}),
        ("details", {"kind": "contact", "body": "", "details": contact % escaped}),
        ("details", {"kind": "template", "body": "", "details": template % escaped}),
        ("media", {"kind": "image", "media": words}),
        ("dedupe_key", {"dedupe_key": words}),
        ("order_group", {"order_group": words}),
    ]
    for column, fields in rows:
        with pytest.raises(errors.CheckViolation) as caught, producer.transaction():
            insert(producer, **fields)
        assert ("empty" if column != "details" else "lack the name") in refused(caught, "jobs", column)
    insert(producer, body=f"{words}.{words}")


def test_the_set_is_that_of_the_properties(owner: Connection) -> None:
    """Of the categories that hold nothing to see everything is in it, but what has a glyph or depends on the reader."""
    codes = [code for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    rows = owner.execute(
        "SELECT code FROM unnest(%s::integer[]) code WHERE shardd.is_blank(chr(code))", [codes]
    ).fetchall()
    blank = {row[0] for row in rows}
    categories = {code: unicodedata.category(chr(code)) for code in codes}
    seen_formats = {
        *range(0x600, 0x606),
        0x6DD,
        0x70F,
        0x890,
        0x891,
        0x8E2,
        0x110BD,
        0x110CD,
        *range(0x13430, 0x13440),
        *range(0xFFF9, 0xFFFC),
    }
    wanted = {
        code for code, category in categories.items() if category in {"Cc", "Zs", "Zl", "Zp", "Cf"}
    } - seen_formats
    assert wanted <= blank
    others = {code for code in blank - wanted if categories[code] != "Cn"}
    assert others == {
        0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0,
        *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
    } - {code for code in (0x180F,) if categories[code] == "Cn"}  # fmt: skip


# ---- more than fits

MANY = "x" * 5_000_000
TOO_MUCH = [
    # a backend was busy for more than ten minutes with the first
    ("body", {"body": "{a}" * 1_600_000, "variables": '{"a": "x"}'}),
    ("body", {"body": "{a}" * 21_000, "variables": '{"a": "x"}'}),
    ("body", {"body": "{a}" * 900, "variables": '{"a": "' + "x" * 60_000 + '"}'}),
    ("body", {"body": "{{" * 32_000, "variables": "{}"}),
    ("body", {"body": "{" * 65_536, "variables": "{}"}),
    ("body", {"body": "{a|" + "x" * 65_530, "variables": "{}"}),
    ("body", {"body": MANY}),
    ("body", {"body": "{" + MANY}),
    ("body", {"body": "\U0001f600" * 65_537}),
    ("variables", {"body": "{a|" + "x" * 65_000 + "}"}),
    ("variables", {"variables": '{"x": "' + MANY + '"}'}),
    ("recipient", {"recipient": "+" + "1" * 5_000_000}),
    ("recipient", {"recipient": "+1" + " ()" * 1_000_000}),
    ("recipient", {"recipient": MANY + "@s.whatsapp.net"}),
    ("media", {"kind": "image", "media": "a" * (2**20) + "://"}),
    ("media", {"kind": "image", "media": " " * (2**20)}),
    ("media", {"kind": "image", "media": MANY}),
    *((column, {column: MANY}) for column in ("kind", "class", "on_doubt", "on_unreadable", "file_name", "mime_type", "reference",
                                             "dedupe_key", "order_group", "device_id", "campaign")),
    ("device_group", {"device_id": None, "device_group": MANY}),
    ("metadata", {"metadata": '{"x": ' + "[1," * 1_000_000 + "1" + "]" * 1_000_000 + "}"}),
    ("metadata", {"metadata": '{"x": [' + "1," * 2_000_000 + "1]}"}),
    # 350 kB, and 650 MB once they are text
    ("variables", {"variables": '{"x": [' + "0e-16383," * 40_000 + "0]}"}),
    ("details", {"details": '{"x": [' + "0e-16383," * 5_000 + "0]}"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "fields"), TOO_MUCH, ids=[f"{number}-{column}" for number, (column, _) in enumerate(TOO_MUCH)]
)
def test_what_is_too_much_is_refused_at_once(producer: Connection, column: str, fields: dict[str, Any]) -> None:
    with pytest.raises((errors.CheckViolation, errors.ForeignKeyViolation, errors.StatementTooComplex)) as caught:
        insert(producer, **fields)
    if not isinstance(caught.value, errors.StatementTooComplex):
        refused(caught, "jobs", column)  # type: ignore[arg-type]  # both have a diag


@pytest.mark.parametrize(
    "text",
    [
        '{"x": [' + "0e-16383," * 40_000 + "0]}",
        '{"x": [' + "0e-16383," * 400_000 + "0]}",
        '{"x": [' + "1," * 2_000_000 + "1]}",
        '{"x": "' + MANY + '"}',
    ],
    ids=["decimals", "more decimals", "digits", "letters"],
)
@pytest.mark.parametrize("column", JSON_LIMITS)
def test_what_is_too_much_takes_little_memory(producer: Connection, column: str, text: str) -> None:
    """At most four copies of the largest value, 24 MB as jsonb; some versions of PostgreSQL make one more than others."""

    def peak() -> int:
        status = Path(f"/proc/{producer.info.backend_pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    with producer.transaction():
        producer.execute("SELECT %s::jsonb IS NULL", [text])
    before = peak()
    with pytest.raises(errors.CheckViolation, match=f"{column} is too long"):
        insert(producer, **{column: text})
    assert peak() - before < 100_000_000


@pytest.mark.parametrize(
    ("table", "column", "fields"),
    [
        ("campaigns", "id", {"id": MANY}),
        ("campaigns", "label", {"id": "d", "label": "x" * 201}),
        ("campaigns", "label", {"id": "d", "label": MANY}),
        ("opt_outs", "recipient", {"recipient": "0" * 5_000_000}),
        ("opt_outs", "note", {"recipient": "+628123456", "note": "x" * 1001}),
        ("opt_outs", "note", {"recipient": "+628123456", "note": MANY}),
    ],
)
def test_other_tables_of_producers_have_limits_too(
    producer: Connection, table: str, column: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(errors.CheckViolation) as caught:
        insert(producer, table, **fields)
    refused(caught, table, column)


def test_what_somebody_wrote_has_a_limit_too(owner: Connection) -> None:
    insert(owner, "opt_outs", recipient="+628123456", source="message", words="\U0001f600" * 1000)
    with pytest.raises(errors.CheckViolation) as caught:
        insert(owner, "opt_outs", recipient="+628123457", source="message", words="x" * 1001)
    refused(caught, "opt_outs", "words")


def test_a_position_of_millions_of_letters_is_refused(producer: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="which is not a position"):
        producer.execute("SELECT * FROM shardd.read_events(%s)", ["1" * 5_000_000])


def test_as_much_as_is_said_fits(producer: Connection) -> None:
    insert(producer, body="{a}" * 1000, variables='{"a": "x"}')
    insert(producer, body="{a}" + "x" * 5536, variables='{"a": "' + "y" * 60_000 + '"}')
    insert(producer, kind="image", media="data:image/png;base64," + "A" * (2**20 - 22))
    insert(producer, "campaigns", id="x" * 64, label="\U0001f600" * 200)
    insert(producer, "opt_outs", recipient="+628123456", note="\U0001f600" * 1000)
