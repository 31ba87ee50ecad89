"""The guarantees of the database: the error of every refused INSERT, dedupe keys, the view, the archive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from shardd.config import TRANSPORTS
from shardd.config.transports.definition import MEDIA_KINDS
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.jobs import Jobs
from shardd.states import FINISHED, DeviceState, JobState
from tests.fixtures.postgres import TEMPLATE, Cluster
from tests.support.queue_rows import run_blocked

Connection = psycopg.Connection[Any]

DEVICES = """
INSERT INTO shardd.devices (id, transport, removed_at)
VALUES ('a', 'sandbox', NULL), ('b', 'whatsapp', NULL), ('gone', 'sandbox', now());
INSERT INTO shardd.device_groups (id) VALUES ('g');
INSERT INTO shardd.campaigns (id, state) VALUES ('c', 'running'), ('resting', 'paused'), ('over', 'cancelled');
"""
JSON_COLUMNS = {"details", "variables", "metadata"}
GOOD_OF_KIND: dict[str, dict[str, Any]] = {
    "text": {"body": "hello"},
    **{kind: {"kind": kind, "media": "https://x/y", "body": ""} for kind in MEDIA_KINDS},
    "location": {"kind": "location", "body": "", "details": {"latitude": 52, "longitude": 13}},
    "contact": {"kind": "contact", "body": "", "details": {"name": "Ada", "phone": "+4915112345678"}},
    "template": {"kind": "template", "body": "", "details": {"name": "order_sent", "language": "en_US"}},
}
_WITHOUT_TEXT = {"audio", "voice", "location", "contact", "template"}
_WITHOUT_FILE = {"location", "contact", "template"}
UNSENT = {
    "body": _WITHOUT_TEXT,
    "variables": _WITHOUT_TEXT,
    "media": _WITHOUT_FILE,
    "file_name": {"text", *_WITHOUT_FILE},
    "mime_type": {"text", *_WITHOUT_FILE},
    "details": set(MEDIA_KINDS),
}
"""By column of a message, the kinds that have no place for it; media of a text has a refusal of its own."""


@pytest.fixture(scope="module")
def module_dbname(cluster: Cluster) -> Iterator[str]:
    """One database for all tests of this module that leave nothing behind."""
    name = cluster.create_database(TEMPLATE)
    with psycopg.connect(cluster.dsn(name)) as connection:
        connection.execute(DEVICES)
    yield name
    cluster.drop_database(name)


@pytest.fixture
def producer(module_dbname: str, cluster: Cluster) -> Iterator[Connection]:
    """A login role in shardd_producer, through a connection of its own; what it does is rolled back."""
    with psycopg.connect(cluster.dsn(module_dbname, "producer")) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def owner(module_dbname: str, cluster: Cluster) -> Iterator[Connection]:
    """The daemon's role; what it does is rolled back."""
    with psycopg.connect(cluster.dsn(module_dbname)) as connection:
        yield connection
        connection.rollback()


def insert(connection: Connection, **fields: Any) -> int | None:
    """The new job's id; None when the INSERT did nothing."""
    values = {"device_id": "a", "recipient": "+6281234567890", "body": "hello", **fields}
    values = {
        name: json.dumps(value) if name in JSON_COLUMNS and value is not None else value
        for name, value in values.items()
    }
    statement = sql.SQL("INSERT INTO shardd.jobs ({}) VALUES ({}) RETURNING id").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
    )
    row = connection.execute(statement, list(values.values())).fetchone()
    return None if row is None else row[0]


def outcome(connection: Connection, job: int | None) -> dict[str, Any]:
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    row = cursor.execute("SELECT * FROM shardd.outcomes WHERE id = %s", [job]).fetchone()
    assert row is not None
    return row


# ---- what is refused

PHONE = r"(?s)recipient '.*' (is neither|cannot be).* phone number"

REFUSALS = [
    # fields, SQLSTATE's class, column, message, a word of the hint
    ({"device_id": "nobody"}, errors.ForeignKeyViolation, "device_id", r"device_id 'nobody' is unknown", "shardd device add"),
    ({"device_id": "gone"}, errors.ForeignKeyViolation, "device_id", r"device_id 'gone' is removed", "shardd device list"),
    ({"device_id": None}, errors.CheckViolation, "device_id", "device_id and device_group are empty", "Name the device"),
    ({"device_group": "g"}, errors.CheckViolation, "device_id", "device_id and device_group are both given", "Name the device"),
    (
        {"device_id": None, "device_group": "G"}, errors.ForeignKeyViolation, "device_group", "device_group 'G' is unknown",
        "shardd group add",
    ),
    ({"campaign": "C"}, errors.ForeignKeyViolation, "campaign", "campaign 'C' is unknown", "shardd campaign add"),
    ({"campaign": "over"}, errors.CheckViolation, "campaign", "campaign 'over' is cancelled", "another id"),
    *(
        ({"class": name}, errors.CheckViolation, "class", f"class is '{name}'", "marketing (nobody waits")
        for name in ("", "Marketing", "otp")
    ),
    ({"order_group": ""}, errors.CheckViolation, "order_group", "order_group is empty", "leave it out"),
    *(
        ({"run_at": "2050-01-01 00:00:00+00", "expires_at": moment}, errors.CheckViolation, "expires_at", "not later than run_at",
         "never be sent")
        for moment in ("2050-01-01 00:00:00+00", "2049-12-31 23:59:59+00", "-infinity")
    ),
    ({"expires_at": "2020-01-01 00:00:00+00"}, errors.CheckViolation, "expires_at", "not later than run_at", "later time"),
    *(
        ({"expires_at": moment}, errors.CheckViolation, "expires_at", "expires_at is", "before the year 2100")
        for moment in ("2100-01-01 00:00:01+00", "infinity")
    ),
    *(
        ({"kind": "template", "body": "", "details": details}, errors.CheckViolation, "details", "lack the name or the language",
         "order_sent")
        for details in (
            None, {}, {"name": "x"}, {"language": "en"}, {"name": " ", "language": "en"}, {"name": {"a": 1}, "language": "en"},
            {"name": "\u200b\u2800", "language": "en"}, {"name": "x", "language": 7}, {"name": None, "language": "en"},
        )
    ),
    (
        {"kind": "template", "body": "", "details": {"name": "x", "language": "en", "components": {"type": "body"}}},
        errors.CheckViolation, "details", 'components of the template are not a list: {"type": "body"}', "order_sent",
    ),
    *(
        ({"body": body, "variables": {"name": "Ada"}}, errors.CheckViolation, "body", "which is not a variable", "A to Z")
        for body in ("{", "}", "a { b", "{}", "{ name }", "{1}", "{name", "name}", "{na me}", "{näme}", "{|x}", "{name}}")
    ),
    *(
        ({"body": "hi {name}", "variables": given}, errors.CheckViolation, "variables", f"variable 'name' is {word}", "{name|")
        for given, word in (({}, "missing"), ({"name": ""}, "empty"), ({"name": None}, "missing"), ({"Name": "x"}, "missing"))
    ),
    *(
        ({"body": "{name|x}", "variables": {"name": value}}, errors.CheckViolation, "variables", "variable 'name' is", "number")
        for value in ({}, [])
    ),
    ({"kind": "image", "media": "ftp://x/y.png"}, errors.CheckViolation, "media", "ftp://x/y.png' is not an http", "a data: URI"),
    ({"body": "hi {name}"}, errors.CheckViolation, "variables", "has the variable '{name}', but variables is empty", "double"),
    ({"body": "{a|b c}"}, errors.CheckViolation, "variables", "has the variable '{a|b c}', but variables is empty", "double"),
    ({"body": "{name}", "variables": {"name": "  "}}, errors.CheckViolation, "body", "body is empty", "needs a body"),
    (
        {"body": "{name}" * 9, "variables": {"name": "x" * 8000}}, errors.CheckViolation, "body", "body has more than 65536",
        "split it",
    ),
    ({"device_id": "A"}, errors.ForeignKeyViolation, "device_id", r"device_id 'A' is unknown", "shardd device list"),
    *(
        ({"recipient": recipient}, errors.CheckViolation, "recipient", PHONE, "country code")
        for recipient in (
            "", " ", "ada", "12345", "+12345", "1234567890123456", "+49 151 123 45 6789 01234567", "++491511234567",
            "49a1511234567", "@s.whatsapp.net", "628@s.whatsapp.net", "628123456@example.org", "628123456@s.whatsapp.net.x",
            "628123456@S.WHATSAPP.NET", "12@g.us", "628123456-12@g.us", "+628123456@s.whatsapp.net", "123456", "00000000000",
            "+123456789012345", "0812-3456-7890", "+999123456789", "+6281234@s.whatsapp.net", "628123@s.whatsapp.net",
            "+628123456x", "\u0661\u0662\u0663\u0664\u0665\u0666\u0667", "1" + " " * 300 + "23456", "628123456; DROP TABLE jobs",
        )
    ),
    *(({"body": body}, errors.CheckViolation, "body", "body is empty", "needs a body") for body in ("", " ", "\n\t \r\n")),
    ({"body": "x" * 65_537}, errors.CheckViolation, "body", "body has 65537 characters", "At most 65536"),
    ({"body": "\U0001f600" * 65_537}, errors.CheckViolation, "body", "body has 65537 characters", "At most 65536"),
    ({"kind": "image", "media": "https://x/y", "body": "x" * 65_537}, errors.CheckViolation, "body", "65537", "65536"),
    ({"kind": "sticker"}, errors.CheckViolation, "kind", "kind 'sticker' is unknown", "text, image, video"),
    ({"kind": "TEXT"}, errors.CheckViolation, "kind", "kind 'TEXT' is unknown", "text, image"),
    ({"kind": ""}, errors.CheckViolation, "kind", "kind '' is unknown", "text, image"),
    ({"kind": None}, errors.CheckViolation, "kind", "kind NULL is unknown", "text, image"),
    ({"media": "https://x/y"}, errors.CheckViolation, "kind", "kind is 'text', but media is given", "image, video"),
    *(
        ({"details": {"link_preview": wanted}}, errors.CheckViolation, "details", f"link_preview is {shown}", "true or false")
        for wanted, shown in (("yes", '"yes"'), (1, "1"), ({}, "{}"))
    ),
    *(
        ({"kind": kind, "media": media}, errors.CheckViolation, "media", f"media is empty, but kind is '{kind}'", "data: URI")
        for kind in ("image", "video", "audio", "voice", "document")
        for media in (None, "", "  ")
    ),
    *(
        ({"kind": "location", "body": "", "details": details}, errors.CheckViolation, "details", "lack the numbers", "52.52")
        for details in (None, {}, {"latitude": 1}, {"latitude": "1", "longitude": "2"}, {"latitude": 1, "longitude": []})
    ),
    *(
        ({"kind": "location", "body": "", "details": details}, errors.CheckViolation, "details", "is not a place", "-90 to 90")
        for details in ({"latitude": 91, "longitude": 0}, {"latitude": 0, "longitude": -181}, {"latitude": 1e15, "longitude": 0})
    ),
    *(
        ({"kind": "contact", "body": "", "details": details}, errors.CheckViolation, "details", "lack the name", "Ada")
        for details in (
            None, {"name": "A"}, {"phone": "+49151"}, {"name": "", "phone": "123"}, {"name": "Ada", "phone": " "},
            {"name": "\u3164\ufeff\u00ad", "phone": "123"}, {"name": ["Ada"], "phone": "123"}, {"name": "Ada", "phone": ["123"]},
        )
    ),
    *(
        (
            {"kind": "contact", "body": "", "details": {"name": "Ada", "phone": phone}},
            errors.CheckViolation, "details", f"details.phone {str(phone)!r} {why}", "+4915112345678",
        )
        for phone, why in (
            ("-", "is neither a phone number nor"),
            ("Praxis", "is neither a phone number nor"), ("49151", "cannot be resolved to a phone number"),
            ("030 1234567", "cannot be resolved to a phone number"), (4915112345678.5, "is a decimal number"),
            ("120363025246125486@g.us", "is not a phone number"), ("98765432101234@lid", "is not a phone number"),
        )
    ),
    *(
        (
            {**GOOD_OF_KIND[kind], column: value},
            errors.CheckViolation, column, f"{column} is given, but kind '{kind}' has no place", hint,
        )
        for column, value, hint in (
            ("body", "hello", "as a job of its own"), ("variables", {"name": "Ada"}, "as a job of its own"),
            ("media", "https://x/y", "kind of the file"), ("file_name", "a.pdf", "kind of the file"),
            ("mime_type", "image/png", "kind of the file"), ("details", {"duration": 3}, "Leave it out (NULL)"),
        )
        for kind in UNSENT[column] - {"template"}
    ),
    *(
        (
            {**GOOD_OF_KIND["template"], column: value},
            errors.CheckViolation, column, f"{column} is given, but kind 'template' has no place", hint,
        )
        for column, value, hint in (
            ("body", "hello", "components of its details"), ("variables", {"name": "Ada"}, "components of its details"),
            ("media", "https://x/y", "kind of the file"),
        )
    ),
    *(
        (
            {"kind": kind, "body": body, "details": details},
            errors.CheckViolation, "details", f"details have '{alien}', which is unknown", hint,
        )
        for kind, body, alien, details, hint in (
            ("text", "x", "preview", {"preview": True}, "Did you mean link_preview? The details of kind 'text': link_preview."),
            ("text", "x", "Link_Preview", {"Link_Preview": True}, "Did you mean link_preview?"),
            ("location", "", "title", {"latitude": 1, "longitude": 2, "title": "x"},
             "The details of kind 'location': latitude, longitude, name, address."),
            ("contact", "", "phone_number", {"name": "Ada", "phone": "+4915112345678", "phone_number": "1"},
             "Did you mean phone?"),
            ("template", "", "component", {"name": "a", "language": "en", "component": []}, "Did you mean components?"),
        )
    ),
    *(
        ({"priority": priority}, errors.CheckViolation, "priority", f"priority is {priority}", "Between -100 and 100")
        for priority in (-101, 101, 32767)
    ),
    *(
        ({"max_attempts": most}, errors.CheckViolation, "max_attempts", f"max_attempts is {most}", "Between 1 and 100")
        for most in (-1, 0, 101)
    ),
    *(
        ({"on_doubt": policy}, errors.CheckViolation, "on_doubt", f"on_doubt is '{policy}'", "hold (wait for an operator)")
        for policy in ("", "drop", "RETRY")
    ),
    *(
        ({"on_unreadable": policy}, errors.CheckViolation, "on_unreadable", f"on_unreadable is '{policy}'", "resend (send it")
        for policy in ("", "drop", "RESEND")
    ),
    *(
        ({"run_at": moment}, errors.CheckViolation, "run_at", "run_at is", "between the years 1971 and 2100")
        for moment in ("1970-12-31 23:59:59+00", "2100-01-01 00:00:01+00", "infinity", "-infinity")
    ),
    *(
        ({name: "x" * (most + 1)}, errors.CheckViolation, name, f"{name} is too long", "At most 200 characters")
        for name, most in (
            ("reference", 200), ("dedupe_key", 200), ("order_group", 200), ("file_name", 255), ("mime_type", 255),
        )
    ),
    ({"kind": "image", "media": "x" * (2**20 + 1)}, errors.CheckViolation, "media", "media is too long", "URL or path"),
    ({"details": {"x": "y" * 8200}}, errors.CheckViolation, "details", "details is too long", "8192 bytes"),
    ({"metadata": {"x": "y" * 8200}}, errors.CheckViolation, "metadata", "metadata is too long", "8192 bytes"),
    ({"variables": {"x": "y" * 65_536}}, errors.CheckViolation, "variables", "variables is too long", "65536 bytes"),
    ({"dedupe_key": ""}, errors.CheckViolation, "dedupe_key", "dedupe_key is empty", "leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "refusal", "column", "message", "hint"),
    [pytest.param(*case, id=f"{number}-{case[2]}") for number, case in enumerate(REFUSALS)],
)
def test_a_bad_row_is_refused_in_words(
    producer: Connection, *, fields: dict[str, Any], refusal: type[psycopg.Error], column: str, message: str, hint: str
) -> None:
    with pytest.raises(refusal, match=message) as caught:
        insert(producer, **fields)
    told = caught.value.diag
    assert (told.schema_name, told.table_name, told.column_name) == ("shardd", "jobs", column)
    assert hint in (told.message_hint or "")
    assert len(told.message_primary or "") < 200


@pytest.mark.parametrize("name", ["recipient", "body", "class", "priority", "max_attempts", "on_doubt", "run_at"])
def test_a_null_is_refused_by_its_name(producer: Connection, name: str) -> None:
    with pytest.raises(errors.NotNullViolation) as caught:
        insert(producer, **{name: None})
    assert caught.value.diag.column_name == name


def test_a_refused_row_takes_its_whole_statement_with_it(producer: Connection) -> None:
    good, bad = ("a", "+6281234567", "x"), ("nobody", "+6281234567", "x")
    before = producer.execute("SELECT count(*) FROM shardd.outcomes").fetchone()
    with pytest.raises(errors.ForeignKeyViolation), producer.transaction():
        producer.cursor().execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, %s, %s), (%s, %s, %s)", [*good, *bad]
        )
    assert producer.execute("SELECT count(*) FROM shardd.outcomes").fetchone() == before


# ---- what is taken

ACCEPTED = [
    {},
    *(
        {"recipient": recipient}
        for recipient in (
            "+6281234567", "6281234567890", "+49 (151) 123-456/78", "+49 (0)30 1234.567", "6281234567@s.whatsapp.net",
            "628123456789\n", "6281234567:3@c.us", "\u200e+62\u00a0812\u20113456\u20117890",
            "98765432101234@lid", "120363025246125486@g.us", "6281234567-1583934859@g.us",
        )
    ),
    {"body": "x" * 65_536},
    {"body": "\U0001f600" * 65_536},
    {"body": "\u200f\u05e9\u05dc\u05d5\u05dd 'quotes' \\ %s {} $1"},
    *({"kind": kind, "media": "https://example.org/a", "body": ""} for kind in ("image", "video", "audio", "voice", "document")),
    {"kind": "image", "media": "data:image/png;base64,AAAA", "body": "a caption", "file_name": "ä.png", "mime_type": "image/png"},
    {"kind": "image", "media": "x" * 2**20},
    {"kind": "location", "body": "", "details": {"latitude": -90, "longitude": 180.0, "name": "x"}},
    {"kind": "contact", "body": "", "details": {"name": "Ada", "phone": "+49 151 1234567"}},
    *({"details": {"link_preview": wanted}} for wanted in (True, False, None)),
    *({"priority": priority} for priority in (-100, 0, 100)),
    *({"max_attempts": most} for most in (1, 100)),
    *({"on_doubt": policy} for policy in ("hold", "retry")),
    *({"on_unreadable": policy} for policy in ("resend", "report", None)),
    *({"run_at": moment} for moment in ("1971-01-01 00:00:00+00", "2100-01-01 00:00:00+00")),
    {"reference": "r" * 200, "dedupe_key": "\U0001f600" * 200, "order_group": "o" * 200},
    {"device_id": None, "device_group": "g"},
    *({"campaign": campaign} for campaign in ("c", "resting")),
    *({"class": name} for name in ("marketing", "service", "reply")),
    {"expires_at": "2100-01-01 00:00:00+00"},
    *({"metadata": metadata} for metadata in ({}, {"list": [1, None, "x", True]}, {"order": {"id": 7}})),
    {"kind": "template", "body": "", "details": {"name": "order_sent", "language": "en_US"}},
    {"body": "{not a template}", "variables": None},
    {"body": '{"json": 1} { id } {{ https://x.example/?q=%7Bname%7D', "variables": None},
    {"body": "hi {name}", "variables": {"name": "Ada", "unused": [1]}},
]  # fmt: skip


@pytest.mark.parametrize("kind", GOOD_OF_KIND)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("body", "x"), ("variables", {}), ("media", "https://x/z"), ("file_name", "a.pdf"), ("mime_type", "image/png"),
        ("details", {}), ("metadata", {"id": 7}), ("reference", "r"), ("expires_at", "2100-01-01 00:00:00+00"),
    ],
)  # fmt: skip
def test_each_kind_takes_what_it_sends_and_refuses_the_rest(
    producer: Connection, kind: str, column: str, value: Any
) -> None:
    if column == "details":
        value = GOOD_OF_KIND[kind].get("details", value)
    fields = {**GOOD_OF_KIND[kind], column: value}
    # Empty details are no details; a text with a file has a refusal of its own.
    if (kind in UNSENT.get(column, ()) and column != "details") or (kind, column) == ("text", "media"):
        with pytest.raises(errors.CheckViolation):
            insert(producer, **fields)
    else:
        assert insert(producer, **fields) is not None


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("+49 (0)30 1234567", "+49301234567"),
        ("0049301234567", "+49301234567"),
        ("4915112345678", "+4915112345678"),
        (4915112345678, "+4915112345678"),
        ("4915112345678@c.us", None),
        ("030 1234567", "+49301234567"),
        ("+52 1 55 8765 4321", "+5215587654321"),
    ],
)
def test_the_number_of_a_contact_is_read_like_a_recipient(owner: Connection, written: Any, sent: str | None) -> None:
    owner.execute("INSERT INTO shardd.settings (name, value) VALUES ('default_codes', '{\"sandbox\": \"49\"}')")
    fields = {"kind": "contact", "body": "", "details": {"name": "Ada", "phone": written}}
    if sent is None:
        with pytest.raises(errors.CheckViolation, match="is not a phone number"):
            insert(owner, **fields)
        return
    job = insert(owner, **fields)
    (stored,) = owner.execute("SELECT details FROM shardd.jobs WHERE id = %s", [job]).fetchone() or [None]
    assert stored == {"name": "Ada", "phone": sent}
    job = insert(owner, recipient=str(written))
    (listed,) = owner.execute("SELECT coalesce(number, address) FROM shardd.jobs WHERE id = %s", [job]).fetchone() or [
        None
    ]
    assert f"+{listed}" == sent
    owner.execute(
        'UPDATE shardd.jobs SET details = \'{"name": "Ada", "phone": "030 7654321"}\' WHERE kind = \'contact\''
    )
    (stored,) = owner.execute("SELECT details ->> 'phone' FROM shardd.jobs WHERE kind = 'contact'").fetchone() or [None]
    assert stored == "+49307654321", "a row that is changed is held to the same"


@pytest.mark.parametrize("fields", ACCEPTED)
def test_a_good_row_is_taken(producer: Connection, fields: dict[str, Any]) -> None:
    job = insert(producer, **fields)
    state = outcome(producer, job)["state"]
    assert state == ("scheduled" if str(fields.get("run_at")).startswith("2100") else "queued")


def test_the_minimal_job_has_these_defaults(producer: Connection) -> None:
    seen = outcome(producer, insert(producer))
    del seen["id"]
    assert seen.pop("run_at") == seen.pop("created_at")
    assert seen == {
        "reference": None, "device_id": "a", "recipient": "+6281234567890", "kind": "text", "state": "queued",
        "waits_for": "its turn", "attempt": 0, "failures": 0, "max_attempts": 5, "priority": 0, "due_at": None,
        "settled_at": None, "message_id": None, "error": None, "delivered_at": None, "read_at": None, "device_group": None,
        "members_without_keys": None,
        "class": "marketing", "campaign": None, "order_group": None, "expires_at": None, "error_class": None, "metadata": None,
        "reply_to": None, "resend_of": None, "unreadable_at": None, "unreadable_why": None, "resent_as": None,
        "revokes": None, "revoked_by": None,
    }  # fmt: skip


def test_a_job_of_the_future_is_scheduled(producer: Connection) -> None:
    row = producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) "
        "VALUES ('a', '+628123456', 'x', now() + interval '1 hour') RETURNING id"
    ).fetchone()
    assert row is not None
    seen = outcome(producer, row[0])
    assert (seen["state"], seen["waits_for"]) == ("scheduled", "its time")
    assert seen["due_at"] == seen["run_at"]


# ---- the line


def test_the_line_follows_priority_then_time_then_id(owner: Connection) -> None:
    moments = [
        "1971-01-01 00:00:00+00",
        "2026-01-01 00:00:00.000001+00",
        "2026-01-01 00:00:00.000002+00",
        "2026-03-29 01:30:00+00",
    ]
    keys = []
    for priority in (0, 100, -100, 1, -1):
        for moment in moments:
            for _ in range(2):
                job = insert(owner, priority=priority, run_at=moment)
                keys.append(((-priority, moment, job), job))
    rows = owner.execute("SELECT id FROM shardd.jobs ORDER BY device_id, ord, id").fetchall()
    assert [row[0] for row in rows] == [job for _, job in sorted(keys)]


def test_no_priority_and_no_time_fall_out_of_the_line(owner: Connection) -> None:
    for priority in (-100, 100):
        for moment in ("1971-01-01 00:00:00+00", "2100-01-01 00:00:00+00"):
            insert(owner, priority=priority, run_at=moment)
    rows = owner.execute("SELECT priority, run_at FROM shardd.jobs ORDER BY ord").fetchall()
    assert [(row[0], row[1].year) for row in rows] == [(100, 1971), (100, 2100), (-100, 1971), (-100, 2100)]


# ---- dedupe keys


def test_a_key_that_was_used_makes_the_insert_do_nothing(producer: Connection) -> None:
    assert insert(producer, dedupe_key="order-1") is not None
    assert insert(producer, dedupe_key="order-1", body="again") is None
    assert insert(producer, dedupe_key="order-2") is not None
    assert insert(producer) is not None
    assert insert(producer) is not None


def test_a_key_twice_in_one_statement_is_one_job(producer: Connection) -> None:
    rows = producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, dedupe_key) "
        "SELECT 'a', '+628123456', 'x', 'k' || n % 3 FROM generate_series(1, 9) n RETURNING id"
    ).fetchall()
    assert len(rows) == 3


@pytest.mark.parametrize("first_commits", [True, False])
def test_a_key_twice_at_the_same_time(dsn: str, producer_dsn: str, first_commits: bool) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(DEVICES)
    got: list[int | None] = []
    with psycopg.connect(producer_dsn) as first, psycopg.connect(producer_dsn) as second:
        assert insert(first, dedupe_key="order-1") is not None

        def later() -> None:
            got.append(insert(second, dedupe_key="order-1"))

        # Only at the end of the first is known whether the key is used.
        run_blocked(dsn, first, second, later, commits=first_commits)
    assert len(got) == 1
    assert (got[0] is None) is first_commits
    with psycopg.connect(producer_dsn) as producer:
        assert producer.execute("SELECT count(*) FROM shardd.outcomes").fetchone() == (1,)


# ---- the view


def test_the_view_knows_every_state(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(DEVICES)
        jobs = [insert(owner) for _ in range(3)]
        owner.execute("UPDATE shardd.jobs SET claimed_epoch = 1 WHERE id = %s", [jobs[1]])
        owner.execute("UPDATE shardd.jobs SET scheduled = true, due_at = now() WHERE id = %s", [jobs[2]])
        for state in FINISHED:
            ended = [insert(owner), state.value]
            assert owner.execute("SELECT shardd.end_jobs(ARRAY[%s], %s, NULL, NULL)", ended).fetchall() == [(ended[0],)]
        states = {row[0] for row in owner.execute("SELECT state FROM shardd.outcomes")}
        assert states == set(JobState)
        with pytest.raises(errors.CheckViolation):
            owner.execute("UPDATE shardd.archive SET state = 'queued'")


@pytest.mark.parametrize(
    ("change", "waits_for"),
    [
        ("UPDATE shardd.devices SET paused_at = now() WHERE id = 'a'", "its device: paused"),
        ("UPDATE shardd.devices SET paused_at = now(), paused_why = 'tea' WHERE id = 'a'", "its device: paused, tea"),
        ("UPDATE shardd.devices SET removed_at = now() WHERE id = 'a'", "nothing: its device was removed"),
        ("UPDATE shardd.devices SET state = 'restricted' WHERE id = 'a'", "its turn"),
        *(
            (f"UPDATE shardd.devices SET state = '{state}', reason = 'why' WHERE id = 'a'", f"its device: {state}, why")
            for state in ("unpaired", "logged_out", "replaced", "banned", "client_outdated")
        ),
        ("UPDATE shardd.jobs SET claimed_epoch = 1", None),
        ("UPDATE shardd.jobs SET scheduled = true, failures = 1", "the end of a backoff"),
        ("UPDATE shardd.jobs SET scheduled = true, held = true, failures = 1", "the job before it in its order group"),
        ("UPDATE shardd.jobs SET device_id = NULL, device_group = 'g'", "a device of its group"),
        ("UPDATE shardd.jobs SET campaign = 'resting'", "its campaign: paused"),
        ("UPDATE shardd.jobs SET campaign = 'over'", "nothing: its campaign was cancelled"),
        ("UPDATE shardd.jobs SET scheduled = true, error = 'restricted'", "restricted"),
    ],
)
def test_the_view_says_what_a_job_waits_for(owner: Connection, change: str, waits_for: str | None) -> None:
    job = insert(owner)
    owner.execute(change)  # type: ignore[call-overload]  # the statements above
    assert outcome(owner, job)["waits_for"] == waits_for


# ---- devices


@pytest.mark.parametrize("name", ["", " a", "ä", "-a", "a b", "a/b", "x" * 65, "a\n"])
def test_a_device_has_a_short_plain_name(owner: Connection, name: str) -> None:
    with pytest.raises(errors.CheckViolation, match="device_id_is_a_short_name"):
        owner.execute("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", [name])


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("transport", "carrier_pigeon", "transport_is_known"),
        ("daily_limit", -1, "daily_limit_is_not_negative"),
        ("gap_min", -1.0, "gap_is_a_range"),
    ],
)
def test_a_bad_device_is_refused(owner: Connection, column: str, value: Any, constraint: str) -> None:
    statement = sql.SQL("UPDATE shardd.devices SET gap_max = 5, {} = %s WHERE id = 'a'").format(sql.Identifier(column))
    with pytest.raises(errors.IntegrityError) as caught:
        owner.execute(statement, [value])
    assert caught.value.diag.constraint_name == constraint


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_can_have_every_transport(owner: Connection, transport: str) -> None:
    owner.execute("UPDATE shardd.devices SET transport = %s WHERE id = 'a'", [transport])


@pytest.mark.parametrize("state", list(DeviceState))
def test_every_state_of_a_device_can_be_written(owner: Connection, state: DeviceState) -> None:
    owner.execute("UPDATE shardd.devices SET state = %s WHERE id = 'a'", [state.value])


def test_a_session_has_one_device(owner: Connection) -> None:
    owner.execute("UPDATE shardd.devices SET session = '628:1@s.whatsapp.net' WHERE id IN ('a', 'gone')")
    with pytest.raises(errors.UniqueViolation):
        owner.execute("UPDATE shardd.devices SET session = '628:1@s.whatsapp.net' WHERE id = 'b'")


# ---- the archive's months


def partitions(owner: Connection) -> set[str]:
    rows = owner.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'shardd.archive'::regclass"
    )
    return {row[0] for row in rows}


async def test_the_archive_has_this_month_and_the_next_two(dsn: str, database: Database) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        months = owner.execute(
            "SELECT 'archive_' || to_char(now() AT TIME ZONE 'UTC' + make_interval(months => n), 'YYYY_MM') "
            "FROM generate_series(0, 2) n"
        ).fetchall()
        wanted = {"archive_other", *(row[0] for row in months)}
        assert partitions(owner) == wanted
        owner.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("shardd", months[1][0])))
        await Jobs(database).prepare_archive()
        assert partitions(owner) == wanted


async def test_a_month_that_began_without_a_partition_stays_where_it_is(dsn: str, database: Database) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(DEVICES)
        (now,) = owner.execute("SELECT 'archive_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')").fetchone()  # type: ignore[misc]
        owner.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("shardd", now)))
        job = insert(owner)
        assert await JobAdmin(database).cancel_all(Traits(), "test") == 1
        await Jobs(database).prepare_archive()
        assert now not in partitions(owner)
        assert len(partitions(owner)) == 3
        assert outcome(owner, job)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("terms", "column", "message"),
    [
        ({"id": "spring/sale"}, "id", "id 'spring/sale' is not a valid campaign id"),
        ({"id": "a", "weight": 0}, "weight", "weight is 0"),
        ({"id": "a", "weight": None}, "weight", "weight is empty"),
        ({"id": "a", "weight": "NaN"}, "weight", "weight is NaN"),
        ({"id": "a", "device_cap": 0}, "device_cap", "device_cap is 0"),
    ],
)
def test_terms_of_a_campaign_are_refused_in_words(dsn: str, terms: dict[str, Any], column: str, message: str) -> None:
    statement = sql.SQL("INSERT INTO shardd.campaigns ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, terms)), sql.SQL(", ").join(map(sql.Placeholder, terms))
    )
    with psycopg.connect(dsn) as connection, pytest.raises(errors.CheckViolation) as caught:
        connection.execute(statement, terms)
    told = caught.value.diag
    assert (told.table_name, told.column_name, told.message_primary) == ("campaigns", column, message)
    assert told.message_hint
