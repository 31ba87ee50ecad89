"""Reads notifications of the Cloud API's webhook: statuses of messages, and what people wrote. Pure.

The object is {"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": …}, "statuses": […], "messages": […]}}]}]}.
Unknown fields and kinds are skipped, and so is what has an unexpected type, which is why this is not a msgspec Struct: one odd
field would refuse the whole notification, and Meta repeats for days whatever is not answered with 200.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shardd.incoming import Incoming
from shardd.supervisor.inbound.cloud_messages import objects_at, read_message, read_preference, text_at
from shardd.supervisor.inbound.cloud_statuses import Status, read_status


@dataclass(frozen=True, slots=True)
class Wrote:
    """A person wrote to one of our numbers."""

    phone_number_id: str
    message: Incoming
    """Without its device."""


Report = Status | Wrote


def read_notification(notification: Any) -> Iterator[Report]:
    """Everything in a notification that is of use here."""
    for entry in objects_at(notification, "entry"):
        for change in objects_at(entry, "changes"):
            value = change.get("value")
            number = text_at(value.get("metadata"), "phone_number_id") if isinstance(value, dict) else ""
            if not number:
                continue
            for status in objects_at(value, "statuses"):
                if (what := read_status(number, status)) is not None:
                    yield what
            contacts = list(objects_at(value, "contacts"))
            found = [read_message(message, contacts) for message in objects_at(value, "messages")]
            found += [read_preference(one, contacts) for one in objects_at(value, "user_preferences")]
            yield from (Wrote(number, incoming) for incoming in found if incoming is not None)
