"""The kinds of jobs are the same in the config's definitions and in the database."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shardd.config import TRANSPORTS
from shardd.config.transports.definition import KINDS, MEDIA_KINDS
from shardd.errors import PermanentError
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.messages.outgoing import MEDIA_TYPES, needs_media
from tests.support.queue_rows import connect


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
