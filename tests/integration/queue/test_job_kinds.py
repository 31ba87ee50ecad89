"""The kinds of jobs are the same in the config's definitions and in the database."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shardd.config import TRANSPORTS
from shardd.config.transports.definition import KINDS, MEDIA_KINDS
from shardd.errors import PermanentError
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.messages.outgoing import MEDIA_TYPES, needs_media
from tests.support.queue_rows import add_devices, connect


def refusal(dsn: str, **job: str) -> psycopg.errors.Diagnostic:
    """What the gate answers to a job that it must refuse."""
    with connect(dsn) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute("SELECT shardd.check_content(jsonb_populate_record(NULL::shardd.jobs, %s))", [Jsonb(job)])
    return refused.value.diag


def test_the_gate_names_exactly_these_kinds(dsn: str) -> None:
    answer = refusal(dsn, kind="pigeon", body="x")
    assert answer.message_primary == "kind 'pigeon' is unknown"
    assert tuple(re.findall(r"[a-z]+", str(answer.message_hint).partition(":")[2])) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_asks_exactly_the_media_kinds_for_media(dsn: str, kind: str) -> None:
    answer = refusal(dsn, kind=kind, body="")
    assert "is unknown" not in str(answer.message_primary)
    assert str(answer.message_primary).startswith("media is empty") == (kind in MEDIA_KINDS)


@pytest.mark.parametrize("kind", [*KINDS, "pigeon"])
def test_whatsapp_sends_the_kinds_of_its_definition(kind: str) -> None:
    job = JobSpec(1, 1, 1, 1, "d1", "+6281234567890", kind=kind, media="x")
    if kind in TRANSPORTS["whatsapp"].kinds:
        assert needs_media(job) == (kind in MEDIA_KINDS) == (kind in MEDIA_TYPES)
    else:
        with pytest.raises(PermanentError, match=kind):
            needs_media(job)


CONTENT = {
    "text": {"body": "x"},
    **{kind: {"media": "https://files.example/x"} for kind in MEDIA_KINDS},
    "location": {"details": Jsonb({"latitude": 1, "longitude": 2})},
    "contact": {"details": Jsonb({"name": "Ada", "phone": "+4915112345678"})},
    "template": {"details": Jsonb({"name": "order_sent", "language": "en_US"})},
}


assert {*CONTENT, "revoke"} == {*KINDS}, "revocations have their device from a job: test_revocations"


def insert(connection: psycopg.Connection[Any], **job: Any) -> psycopg.errors.Diagnostic | None:
    """How the database refuses a job, or None; a job that is accepted is left in the queue."""
    columns = {"recipient": "+4915112345678", "body": "", **job}
    names = ", ".join(columns)
    try:
        connection.execute(
            f"INSERT INTO shardd.jobs ({names}) VALUES ({', '.join(['%s'] * len(columns))})",
            list(columns.values()),
        )
    except psycopg.Error as refused:
        return refused.diag
    return None


def test_a_kind_that_no_device_can_send_is_refused_at_once(dsn: str) -> None:
    for transport in TRANSPORTS:
        add_devices(dsn, transport, transport=transport)
    with connect(dsn) as connection:
        for name, definition in TRANSPORTS.items():
            for kind, content in CONTENT.items():
                refused = insert(connection, device_id=name, kind=kind, **content)
                assert (refused is None) == (kind in definition.kinds), f"{kind} with {name}"
                if refused is not None:
                    assert refused.column_name == "kind"
                    assert refused.message_primary == f"kind '{kind}' cannot be sent by device '{name}' ({name})"
                    assert f"that it sends: {', '.join(sorted(definition.kinds))}." in str(refused.message_hint)
        connection.execute("INSERT INTO shardd.device_groups (id) VALUES ('mixed'), ('phones'), ('empty')")
        connection.execute(
            "INSERT INTO shardd.device_group_members (device_group, device_id) "
            "VALUES ('mixed', 'whatsapp'), ('mixed', 'cloud_api'), ('phones', 'whatsapp'), ('phones', 'wablas')"
        )
        template = {"kind": "template", **CONTENT["template"]}
        assert insert(connection, device_group="mixed", **template) is None
        assert insert(connection, device_group="empty", **template) is None
        refused = insert(connection, device_group="phones", **template)
        assert refused is not None
        assert (
            refused.message_primary
            == "kind 'template' cannot be sent by any device of the group 'phones' (wablas, whatsapp)"
        )
        # Nor can the content of a job become one that its device cannot send.
        with pytest.raises(psycopg.errors.CheckViolation, match="kind 'video' cannot be sent by device 'wablas'"):
            connection.execute("UPDATE shardd.jobs SET kind = 'video' WHERE device_id = 'wablas' AND kind = 'image'")


def test_a_preview_is_refused_where_the_platform_decides(dsn: str) -> None:
    for transport in TRANSPORTS:
        add_devices(dsn, transport, transport=transport)
    with connect(dsn) as connection:
        for name, definition in TRANSPORTS.items():
            for choice in (True, False):
                refused = insert(
                    connection, device_id=name, body="https://example.com", details=Jsonb({"link_preview": choice})
                )
                assert (refused is None) == definition.link_preview
                if refused is not None:
                    assert (refused.column_name, refused.message_primary) == (
                        "details",
                        f"link_preview cannot be chosen for device '{name}' ({name})",
                    )
            assert insert(connection, device_id=name, body="x", details=Jsonb({})) is None
