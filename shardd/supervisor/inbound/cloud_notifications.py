"""Reads notifications of the Cloud API's webhook: statuses of messages, and texts that people wrote. Pure.

The object is {"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": …}, "statuses": […], "messages": […]}}]}]}.
Unknown fields and kinds are skipped, and so is what has an unexpected type, which is why this is not a msgspec Struct: one odd
field would refuse the whole notification, and Meta repeats for days whatever is not answered with 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shardd.errors import ErrorClass
from shardd.transports.platforms.cloud_codes import error_of, meaning_of, unknown
from shardd.urls import scrub_urls

RECEIPTS: Final = MappingProxyType({"delivered": "delivered", "read": "read", "played": "read"})
"""The kind of receipt of each status; `sent` only repeats the answer to the request."""
MAX_TEXT: Final = 1000
"""Characters that are kept of an error or an incoming text."""
MAX_ID: Final = 200
"""Characters of a message id; Meta's have about sixty."""
_NUMBER: Final = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A message was delivered or read; `at` in POSIX seconds, None: not given."""

    phone_number_id: str
    message_id: str
    kind: str
    at: float | None


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """An accepted message could not be delivered."""

    phone_number_id: str
    message_id: str
    error: str
    error_class: ErrorClass = ErrorClass.SERVER


@dataclass(frozen=True, slots=True)
class Wrote:
    """A person wrote to one of our numbers; `sender`: digits of a phone number."""

    phone_number_id: str
    sender: str
    text: str


Report = Confirmed | NotDelivered | Wrote


def read_notification(notification: Any) -> Iterator[Report]:
    """Everything in a notification that is of use here."""
    for entry in _objects(notification, "entry"):
        for change in _objects(entry, "changes"):
            value = change.get("value")
            number = _text(value.get("metadata"), "phone_number_id") if isinstance(value, dict) else ""
            if not number:
                continue
            for status in _objects(value, "statuses"):
                yield from _status(number, status)
            for message in _objects(value, "messages"):
                sender, text = _text(message, "from"), _words(message)
                if _NUMBER.fullmatch(sender) and text:
                    yield Wrote(number, sender, text[:MAX_TEXT])


def _status(number: str, status: Mapping[str, Any]) -> Iterator[Report]:
    message_id, word = _text(status, "id"), _text(status, "status")
    if not message_id or len(message_id) > MAX_ID or not message_id.isprintable():
        return
    if word in RECEIPTS:
        yield Confirmed(number, message_id, RECEIPTS[word], _timestamp(_text(status, "timestamp")))
    elif word == "failed":
        errors = list(_objects(status, "errors"))
        text = scrub_urls("; ".join(map(_error, errors)))[:MAX_TEXT]
        if not errors:
            yield NotDelivered(number, message_id, "Meta gives no reason")
        elif (meaning := meaning_of(errors[0].get("code"))) is not None:
            yield NotDelivered(number, message_id, text, error_of(meaning, text).error_class)
        else:
            yield NotDelivered(number, message_id, unknown(text), ErrorClass.UNKNOWN)


def _error(error: Mapping[str, Any]) -> str:
    title = _text(error, "title") or _text(error, "message")
    code = error.get("code", "")
    words = [
        str(code)[:MAX_ID] if isinstance(code, str) or (isinstance(code, int) and abs(code) < 2**63) else "",
        title,
        _text(error.get("error_data"), "details"),
    ]
    return ": ".join(dict.fromkeys(word for word in words if word))


def _words(message: Mapping[str, Any]) -> str:
    """The text that a person wrote, or the button or list entry that was chosen."""
    interactive = message.get("interactive")
    chosen = [interactive.get(kind) for kind in ("button_reply", "list_reply")] if isinstance(interactive, dict) else []
    return (
        _text(message.get("text"), "body")
        or _text(message.get("button"), "text")
        or next((title for one in chosen if (title := _text(one, "title"))), "")
    )


def _objects(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    return (one for one in found if isinstance(one, dict)) if isinstance(found, list) else iter(())


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _timestamp(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
