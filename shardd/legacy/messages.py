"""Converts rows of `broadcast_messages` to jobs, and recognises those that were or may have been sent.

A message is sent as stored: nothing in its text is replaced. The zone of a time without one is known only to its owner, who
names it; hours are never added or subtracted.
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
from shardd.queue.imports import ImportedJob
from shardd.urls import safe_url

WAITING: Final = frozenset({"pending", "queued"})
IN_FLIGHT: Final = frozenset({"processing", "sending"})
SENT: Final = frozenset({"sent", "delivered", "read", "success", "completed"})
UNSENT: Final = frozenset({"failed", "error", "cancelled", "canceled", "skipped", "expired", "timeout"})
KINDS: Final = ("text", "image", "video", "audio", "document")
KEPT: Final = ("user_id", "campaign_id", "sequence_id", "sequence_stepid", "recipient_name", "group_id", "group_order")
"""Columns that are kept in the job's metadata, and so appear with its outcome."""

LOCAL_NUMBER: Final = (
    "recipient_phone has no country code: it is read as a number of transports.whatsapp.default_region"
)
AFTER_UNSENT: Final = "an earlier message of its order group was not sent"

NO_DATES: Final = ("0000-00-00", "0001-01-01")
"""What MySQL and Go store for no date."""
YEARS: Final = range(1971, 2100)
"""The years that a job's times may be in."""

_TABLE: Final = MESSAGES.name


class RefusedRowError(ValueError):
    """A row that cannot become a job: a reason that many rows may share, and the detail of this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that is not imported and may not have been sent: later ones of its order group must not be sent."""

    row: str


class MessageReader:
    """Classifies rows, and enters the result in the report."""

    def __init__(
        self, devices: Collection[str], report: Report, *, zone: ZoneInfo, expire_after: float | None, now: datetime
    ) -> None:
        """`devices`: old ids of devices that can send; `zone`: of times without one; `expire_after`: seconds."""
        self._devices = devices
        self._report = report
        self._zone = zone
        self._expire_after = None if expire_after is None else timedelta(seconds=expire_after)
        self._now = now

    def read(self, row: Row) -> ImportedJob | Unsent | None:
        """Classify a row; None: it was sent. The `device_id` of a job is still the old id."""
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
        if status in IN_FLIGHT or (status in WAITING and sent_at):
            whom = f"{status}, device {row['device_id']}, to {row['recipient_phone']}"
            self._report.doubt(old_id, whom + (f", sent_at {sent_at}" if sent_at else ""))
            return Unsent(old_id)
        try:
            return self._job(row, old_id, status)
        except RefusedRowError as refusal:
            self._report.refuse(_TABLE, old_id, refusal.reason, refusal.detail)
            return Unsent(old_id)

    def _job(self, row: Row, old_id: str, status: str) -> ImportedJob:
        if status not in WAITING:
            raise RefusedRowError(
                "status is unknown; known are pending, queued, processing, sending, sent, failed and the like", status
            )
        device = row["device_id"] or ""
        if not old_id:
            raise RefusedRowError("id is empty")
        if device not in self._devices:
            raise RefusedRowError("device_id is not the id of an imported device", device)
        kind, media = self._content(row, old_id)
        run_at = self._moment(row, "scheduled_at") or self._moment(row, "created_at") or self._now
        recipient = (row["recipient_phone"] or "").strip()
        if re.match(r"0[1-9]", recipient):
            self._report.note(_TABLE, old_id, LOCAL_NUMBER, recipient)
        campaign = row.get("campaign_id")
        if campaign and (campaign := new_id(f"legacy-{campaign}", "")) is None:
            raise RefusedRowError(
                "campaign_id contains characters that a campaign id cannot have", row["campaign_id"] or ""
            )
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
        kind = (row.get("message_type") or "").strip().lower() or "text"
        media = (row.get("media_url") or "").strip()
        if kind not in KINDS:
            raise RefusedRowError(f"message_type is not one of {', '.join(KINDS)}", kind)
        if kind == "text" and not media:
            return kind, None
        if not media:
            raise RefusedRowError("media_url is empty, but message_type is a kind of media", kind)
        if not media.lower().startswith(("http://", "https://", "data:")):
            raise RefusedRowError("media_url is not an http(s) or data URL", safe_url(media))
        if kind == "text":
            # The old system silently dropped the images of such messages.
            kind = _kind_of(media)
            self._report.note(_TABLE, old_id, "message_type is text, but media_url is set: it is sent as media", kind)
        return kind, media

    def _moment(self, row: Row, column: str) -> datetime | None:
        text = row.get(column)
        try:
            return read_moment(text, self._zone)
        except ValueError:
            raise RefusedRowError(f"{column} is not a time", text or "") from None


def read_moment(text: str | None, zone: ZoneInfo) -> datetime | None:
    """The time in a column; `zone` applies if it has none. Raises ValueError for text that is not a valid time."""
    if text is None or not text.strip() or text.startswith(NO_DATES):
        return None
    moment = datetime.fromisoformat(text.strip())
    if moment.year not in YEARS:
        raise ValueError(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def order_group(row: Row) -> str | None:
    """The order group of a row."""
    group = (row.get("group_id") or "").strip()
    return f"legacy:{group}" if group else None


def _kind_of(media: str) -> str:
    guess, _ = mimetypes.guess_type(media if media.lower().startswith("data:") else urlsplit(media).path)
    main = (guess or "image/").partition("/")[0]
    return main if main in {"image", "video", "audio"} else "document"
