"""Reads statuses in notifications of the Cloud API's webhook: what became of a message that Meta accepted. Pure.

The fields are those of Meta's webhook reference ("status messages"): id, status, timestamp, errors, recipient_id (the recipient's
wa_id), recipient_user_id, and biz_opaque_callback_data as it was sent with the message. Statuses may come late, twice and in any
order. What has an unexpected type is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shardd.errors import ErrorClass, SendError
from shardd.ipc import ClaimKey
from shardd.supervisor.inbound.cloud_messages import addresses_of, objects_at, text_at
from shardd.transports.platforms.callback_data import claim_of
from shardd.transports.platforms.cloud_codes import error_of, meaning_of, unknown
from shardd.urls import scrub_urls

KINDS: Final = MappingProxyType(
    {"sent": "sent", "delivered": "delivered", "read": "read", "played": "read", "failed": "failed"}
)
"""The kind of receipt of each status."""
MAX_TEXT: Final = 1000
"""Characters that are kept of an error."""
MAX_ID: Final = 200
"""Characters of a message id; Meta's have about sixty."""
NO_REASON: Final = "Meta gives no reason"


@dataclass(frozen=True, slots=True)
class Status:
    """What became of a message. `at` in POSIX seconds, None: not given."""

    phone_number_id: str
    message_id: str
    kind: str
    at: float | None
    claim: ClaimKey | None = None
    """The claim with which it was sent; None: another program sent it, or a version of shardd that did not say."""
    error: SendError | None = None
    """Of a failed message: what the same error in an answer would mean."""
    addresses: tuple[str, ...] = ()
    """The recipient's."""


def read_status(phone_number_id: str, status: Mapping[str, Any]) -> Status | None:
    """A status; None: it says nothing of use."""
    message_id, kind = text_at(status, "id"), KINDS.get(text_at(status, "status"))
    if kind is None or not message_id or len(message_id) > MAX_ID or not message_id.isprintable():
        return None
    claim = claim_of(status.get("biz_opaque_callback_data"))
    if kind == "sent" and claim is None:
        return None  # it repeats the answer to the request
    error = _error(list(objects_at(status, "errors"))) if kind == "failed" else None
    addresses = addresses_of([text_at(status, "recipient_id")], [text_at(status, "recipient_user_id")])
    return Status(phone_number_id, message_id, kind, _timestamp(status.get("timestamp")), claim, error, addresses)


def _error(errors: list[Mapping[str, Any]]) -> SendError:
    if not errors:
        return SendError(NO_REASON, error_class=ErrorClass.SERVER)
    text = scrub_urls("; ".join(map(_describe, errors)))[:MAX_TEXT] or NO_REASON
    if (meaning := meaning_of(errors[0].get("code"))) is not None:
        return error_of(meaning, text)
    return SendError(unknown(text), error_class=ErrorClass.UNKNOWN)


def _describe(error: Mapping[str, Any]) -> str:
    title = text_at(error, "title") or text_at(error, "message")
    code = error.get("code", "")
    words = [
        str(code)[:MAX_ID] if isinstance(code, str) or (isinstance(code, int) and abs(code) < 2**63) else "",
        title,
        text_at(error.get("error_data"), "details"),
    ]
    return ": ".join(dict.fromkeys(word for word in words if word))


def _timestamp(text: object) -> float | None:
    """Meta writes it as text, and in some notifications as a number."""
    digits = str(text) if isinstance(text, str | int) else ""
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else None
