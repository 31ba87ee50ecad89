"""Rows of `broadcast_messages`: which wait, which may have been sent, and the jobs that the waiting ones become.

A message goes as it stands there: nothing in its text is replaced, and its time is the one that was written down.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from shardd.legacy.devices import new_id
from shardd.legacy.report import Report
from shardd.legacy.tables import MESSAGES, Row
from shardd.legacy.timestamps import NO_DATES, read_moment
from shardd.queue.imports import ImportedJob
from shardd.urls import safe_url

WAITING: Final = frozenset({"pending", "queued"})
IN_HAND: Final = frozenset({"processing", "sending"})
SENT: Final = frozenset({"sent", "delivered", "read", "success", "completed"})
UNSENT: Final = frozenset({"failed", "error", "cancelled", "canceled", "skipped", "expired", "timeout"})
KINDS: Final = {
    "text": "text",
    "": "text",
    "image": "image",
    "video": "video",
    "audio": "audio",
    "document": "document",
}
KEPT: Final = ("user_id", "campaign_id", "sequence_id", "sequence_stepid", "recipient_name", "group_id", "group_order")
"""Columns that come back with every outcome, in the job's metadata."""

LOCAL_NUMBER: Final = "recipient_phone has no country code: it is read as one of transports.whatsapp.default_region"
AFTER_UNSENT: Final = "a message before it in its order group was not sent"

_TABLE: Final = MESSAGES.name


class RefusedRowError(ValueError):
    """A row that cannot become a job: its kind of fault, and what is special about this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that becomes a job; `job.device_id` is still the old one."""

    job: ImportedJob


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that does not, and was not surely sent: those after it in its order group may not go."""

    row: str


class MessageReader:
    """Judges one row after the other, and keeps the report."""

    def __init__(
        self, devices: Collection[str], report: Report, *, zone: ZoneInfo, expire_after: float | None, now: datetime
    ) -> None:
        """`devices`: old ids of those that can be sent from; `zone`: of times that name none; `expire_after`: seconds."""
        self._devices = devices
        self._report = report
        self._zone = zone
        self._expire_after = None if expire_after is None else timedelta(seconds=expire_after)
        self._now = now

    def read(self, row: Row) -> Waiting | Unsent | None:
        """What a row is; None: it is done with."""
        old_id = row["id"] or ""
        status = (row["status"] or "").strip().lower()
        if status in SENT:
            self._report.finished[status] += 1
            return None
        if status in UNSENT:
            self._report.finished[status] += 1
            return Unsent(old_id)
        sent_at = row.get("sent_at") or ""
        sent_at = "" if sent_at.startswith(NO_DATES) else sent_at
        if status in IN_HAND or (status in WAITING and sent_at):
            whom = f"{status}, device {row['device_id']}, to {row['recipient_phone']}"
            self._report.doubt(old_id, whom + (f", sent_at {sent_at}" if sent_at else ""))
            return Unsent(old_id)
        try:
            return Waiting(self._job(row, old_id, status))
        except RefusedRowError as refusal:
            self._report.refuse(_TABLE, old_id, refusal.reason, refusal.detail)
            return Unsent(old_id)

    def _job(self, row: Row, old_id: str, status: str) -> ImportedJob:
        if status not in WAITING:
            raise RefusedRowError(
                "status is none that is known: pending, queued, processing, sending, sent, failed …", status
            )
        device = row["device_id"] or ""
        if not old_id:
            raise RefusedRowError("id is empty")
        if device not in self._devices:
            raise RefusedRowError("device_id is no device that is taken over", device)
        kind, media = self._content(row, old_id)
        run_at = self._moment(row, "scheduled_at") or self._moment(row, "created_at") or self._now
        recipient = (row["recipient_phone"] or "").strip()
        if re.match(r"0[1-9]", recipient):
            self._report.note(_TABLE, old_id, LOCAL_NUMBER, recipient)
        campaign = row.get("campaign_id")
        if campaign and (campaign := new_id(f"legacy-{campaign}", "")) is None:
            raise RefusedRowError("campaign_id has letters that no campaign's id may have", row["campaign_id"] or "")
        return ImportedJob(
            dedupe_key=f"legacy:{old_id}",
            device_id=device,
            recipient=recipient,
            kind=kind,
            body=row["content"] or "",
            media=media,
            run_at=run_at,
            expires_at=None if self._expire_after is None else run_at + self._expire_after,
            campaign=campaign or None,
            order_group=order_group(row),
            reference=old_id,
            metadata={name: value for name in KEPT if (value := row.get(name))},
        )

    def _content(self, row: Row, old_id: str) -> tuple[str, str | None]:
        named = (row.get("message_type") or "").strip().lower()
        media = (row.get("media_url") or "").strip()
        kind = KINDS.get(named)
        if kind is None:
            raise RefusedRowError(f"message_type is none that is known: {', '.join(filter(None, KINDS))}", named)
        if kind == "text" and not media:
            return kind, None
        if not media:
            raise RefusedRowError("media_url is empty, but message_type names media", named)
        if not media.lower().startswith(("http://", "https://", "data:")):
            raise RefusedRowError(
                "media_url is no address that shardd can fetch: http(s)://… or data:", safe_url(media)
            )
        if kind == "text":
            # The old system dropped the images of such messages without a word.
            kind = _kind_of(media)
            self._report.note(
                _TABLE, old_id, "message_type is text, but there is a media_url: it goes with its media", kind
            )
        return kind, media

    def _moment(self, row: Row, column: str) -> datetime | None:
        text = row.get(column)
        try:
            return read_moment(text, self._zone)
        except ValueError:
            raise RefusedRowError(f"{column} is no time", text or "") from None


def order_group(row: Row) -> str | None:
    """The order group that a row belongs to."""
    group = (row.get("group_id") or "").strip()
    return f"legacy:{group}" if group else None


def _kind_of(media: str) -> str:
    guess, _ = mimetypes.guess_type(media if media.lower().startswith("data:") else urlsplit(media).path)
    main = (guess or "image/").partition("/")[0]
    return main if main in {"image", "video", "audio"} else "document"
