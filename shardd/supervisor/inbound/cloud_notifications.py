"""Reads notifications of the Cloud API's webhook: statuses of messages, and texts that people wrote. Pure.

The object is {"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": …}, "statuses": […], "messages": […]}}]}]}.
Unknown fields and kinds are skipped, and so is what has an unexpected type, which is why this is not a msgspec Struct: one odd
field would refuse the whole notification, and Meta repeats for days whatever is not answered with 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shardd.supervisor.inbound.cloud_statuses import Status, read_status

MAX_TEXT: Final = 1000
"""Characters that are kept of an incoming text."""
_NUMBER: Final = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Wrote:
    """A person wrote to one of our numbers; `sender`: digits of a phone number."""

    phone_number_id: str
    sender: str
    text: str


Report = Status | Wrote


def read_notification(notification: Any) -> Iterator[Report]:
    """Everything in a notification that is of use here."""
    for entry in _objects(notification, "entry"):
        for change in _objects(entry, "changes"):
            value = change.get("value")
            number = _text(value.get("metadata"), "phone_number_id") if isinstance(value, dict) else ""
            if not number:
                continue
            for status in _objects(value, "statuses"):
                if (found := read_status(number, status)) is not None:
                    yield found
            for message in _objects(value, "messages"):
                sender, text = _text(message, "from"), _words(message)
                if _NUMBER.fullmatch(sender) and text:
                    yield Wrote(number, sender, text[:MAX_TEXT])


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
