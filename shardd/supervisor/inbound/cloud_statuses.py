"""Reads statuses in notifications of the Cloud API's webhook: what became of a message that Meta accepted. Pure.

The fields are those of Meta's webhook reference ("status messages"): id, status, timestamp, errors, and biz_opaque_callback_data
as it was sent with the message. Statuses may come late, twice and in any order. What has an unexpected type is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shardd.errors import ErrorClass, SendError
from shardd.ipc import ClaimKey
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


def read_status(phone_number_id: str, status: Mapping[str, Any]) -> Status | None:
    """A status; None: it says nothing of use."""
    message_id, kind = _text(status, "id"), KINDS.get(_text(status, "status"))
    if kind is None or not message_id or len(message_id) > MAX_ID or not message_id.isprintable():
        return None
    claim = claim_of(status.get("biz_opaque_callback_data"))
    if kind == "sent" and claim is None:
        return None  # it repeats the answer to the request
    error = _error(list(_objects(status, "errors"))) if kind == "failed" else None
    return Status(phone_number_id, message_id, kind, _timestamp(status.get("timestamp")), claim, error)


def _error(errors: list[Mapping[str, Any]]) -> SendError:
    if not errors:
        return SendError(NO_REASON, error_class=ErrorClass.SERVER)
    text = scrub_urls("; ".join(map(_describe, errors)))[:MAX_TEXT] or NO_REASON
    if (meaning := meaning_of(errors[0].get("code"))) is not None:
        return error_of(meaning, text)
    return SendError(unknown(text), error_class=ErrorClass.UNKNOWN)


def _describe(error: Mapping[str, Any]) -> str:
    title = _text(error, "title") or _text(error, "message")
    code = error.get("code", "")
    words = [
        str(code)[:MAX_ID] if isinstance(code, str) or (isinstance(code, int) and abs(code) < 2**63) else "",
        title,
        _text(error.get("error_data"), "details"),
    ]
    return ": ".join(dict.fromkeys(word for word in words if word))


def _objects(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    return (one for one in found if isinstance(one, dict)) if isinstance(found, list) else iter(())


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _timestamp(text: object) -> float | None:
    """Meta writes it as text, and in some notifications as a number."""
    digits = str(text) if isinstance(text, str | int) else ""
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else None
