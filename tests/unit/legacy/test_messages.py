from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from shardd.legacy.messages import MessageReader, Unsent, read_moment
from shardd.legacy.report import Report
from shardd.legacy.spool import Spool
from shardd.legacy.tables import Row
from shardd.queue.imports import ImportedJob

NOW = datetime(2026, 6, 1, tzinfo=UTC)
JAKARTA = ZoneInfo("Asia/Jakarta")


@pytest.fixture
def report() -> Report:
    return Report("old", dry_run=True, keep_all=True)


@pytest.fixture
def reader(report: Report) -> MessageReader:
    return MessageReader({"d"}, report, zone=JAKARTA, expire_after=3600, now=NOW)


def row(old_id: str = "1", **fields: str | None) -> Row:
    return {"id": old_id, "device_id": "d", "recipient_phone": "62811", "content": "hi", "status": "pending", **fields}


def job(reader: MessageReader, **fields: str | None) -> ImportedJob:
    message = reader.read(row(**fields))
    assert isinstance(message, ImportedJob)
    return message


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("  ", None),
        ("0000-00-00 00:00:00", None),
        ("0001-01-01 00:00:00+00", None),
        ("2026-03-01 09:30:00", datetime(2026, 3, 1, 2, 30, tzinfo=UTC)),
        ("2026-03-01 09:30:00.25", datetime(2026, 3, 1, 2, 30, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01T09:30:00Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01 09:30:00+08", datetime(2026, 3, 1, 1, 30, tzinfo=UTC)),
        ("2026-03-01 09:30:00-03:30", datetime(2026, 3, 1, 13, 0, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 2, 28, 17, 0, tzinfo=UTC)),
    ],
)
def test_a_moment_is_what_is_written_and_nothing_is_added(text: str | None, moment: datetime | None) -> None:
    assert read_moment(text, JAKARTA) == moment


@pytest.mark.parametrize(
    "text", ["infinity", "soon", "2026-13-01", "1066-01-01 00:00:00", "9999-12-31 23:59:59", "12:00"]
)
def test_what_is_no_moment_refuses_its_row(reader: MessageReader, report: Report, text: str) -> None:
    assert isinstance(reader.read(row(scheduled_at=text)), Unsent)
    assert list(report.refused) == [("broadcast_messages", "scheduled_at is not a time")]


def test_a_message_is_due_when_it_was_scheduled_else_when_it_was_made_else_now(reader: MessageReader) -> None:
    scheduled, made = "2026-05-01 07:00:00", "2026-04-01 07:00:00"
    assert job(reader, scheduled_at=scheduled, created_at=made).run_at == datetime(2026, 5, 1, tzinfo=UTC)
    assert job(reader, created_at=made).run_at == datetime(2026, 4, 1, tzinfo=UTC)
    due_now = job(reader)
    assert (due_now.run_at, due_now.expires_at) == (NOW, NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("status", "sent_at", "fate"),
    [
        ("pending", None, ImportedJob),
        ("QUEUED ", "0001-01-01 00:00:00", ImportedJob),
        ("pending", "2026-01-01 00:00:00", "doubt"),
        ("processing", None, "doubt"),
        ("sending", None, "doubt"),
        ("Sent", "2026-01-01 00:00:00", "finished"),
        ("failed", None, "finished"),
        ("paused", None, "refused"),
        (None, None, "refused"),
    ],
)
def test_only_what_surely_waits_is_taken(
    reader: MessageReader, report: Report, status: str | None, sent_at: str | None, fate: object
) -> None:
    message = reader.read(row(status=status, sent_at=sent_at))
    found = {"doubt": report.in_doubt.count, "finished": report.finished.total(), "refused": report.refusals}
    assert found == {name: int(name == fate) for name in found}
    assert isinstance(message, ImportedJob) == (fate is ImportedJob)


@pytest.mark.parametrize(
    ("kind", "media", "becomes"),
    [
        ("text", None, ("text", None)),
        (None, "", ("text", None)),
        ("Image", "https://x/a", ("image", "https://x/a")),
        ("document", "http://x/a.png", ("document", "http://x/a.png")),
        ("text", "https://x/a.MP4?v=1", ("video", "https://x/a.MP4?v=1")),
        ("", "https://x/a.pdf", ("document", "https://x/a.pdf")),
        ("text", "https://x/picture", ("image", "https://x/picture")),
        ("text", "data:audio/ogg;base64,AA==", ("audio", "data:audio/ogg;base64,AA==")),
        ("image", "", None),
        ("image", "/uploads/a.png", None),
        ("image", "C:\\a.png", None),
        ("text", "ftp://x/a.png", None),
        ("sticker", "https://x/a", None),
    ],
)
def test_media_goes_along_or_the_row_stays(
    reader: MessageReader, kind: str | None, media: str | None, becomes: tuple[str, str | None] | None
) -> None:
    message = reader.read(row(message_type=kind, media_url=media))
    assert ((message.kind, message.media) if isinstance(message, ImportedJob) else None) == becomes


@pytest.fixture
def spool() -> Iterator[Spool]:
    with closing(Spool()) as spool:
        yield spool


def test_the_spool_sorts_by_group_and_place_and_keeps_what_was_not_sent(spool: Spool, reader: MessageReader) -> None:
    rows = [
        row("b2", group_id="b", group_order="2"),
        row("a10", group_id="a", group_order="10", scheduled_at="2026-01-01 00:00:00"),
        row("a9", group_id="a", group_order="9", scheduled_at="2026-02-01 00:00:00"),
        row("a-last", group_id="a"),
        row("b1", group_id="b", group_order="1", status="failed"),
        row("b0", group_id="b", group_order="0", status="sent"),
        row("20", created_at="2026-01-02 00:00:00+07"),
        row("3", created_at="2026-01-01 18:00:00+00"),
        row("10", created_at="2026-01-02 00:00:00+07"),
        row("9", created_at="2026-01-02 00:00:00+07"),
        row("11", status="failed"),
    ]
    for one in rows:
        message = reader.read(one)
        if message is not None:
            spool.add(one, message)
    told = [(group, job.reference if job else None) for group, job in spool.jobs()]
    assert told == [
        (None, "9"),
        (None, "10"),
        (None, "20"),
        (None, "3"),
        ("legacy:a", "a9"),
        ("legacy:a", "a10"),
        ("legacy:a", "a-last"),
        ("legacy:b", None),
        ("legacy:b", "b2"),
    ]
