"""Reads messages in notifications of the Cloud API's webhook. Pure.

The fields are those of Meta's webhook reference ("messages object"): id, from, timestamp, type, and an object named like the
type; context.id is the message that a reply or a button refers to. What has an unexpected type is skipped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shardd.incoming import MAX_NAME, Incoming, IncomingMedia
from shardd.storable import storable

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_MEDIA: Final = frozenset({"image", "video", "audio", "document", "sticker"})
_MOST_CONTACTS: Final = 20


def read_message(message: Mapping[str, Any], contacts: list[Mapping[str, Any]]) -> Incoming | None:
    """A message, without its device; None: it has no id or no sender.

    `contacts`: of the notification, which have the senders' names, and their `wa_id` where it differs from the number.
    """
    message_id, sender = text_at(message, "id"), text_at(message, "from")
    if not message_id or not _NUMBER.fullmatch(sender):
        return None
    contact = next(
        (one for one in contacts if text_at(one, "wa_id") == sender), contacts[0] if len(contacts) == 1 else {}
    )
    other = text_at(contact, "wa_id")
    addresses = dict.fromkeys(f"+{digits}" for digits in (sender, other) if _NUMBER.fullmatch(digits))
    stamp = text_at(message, "timestamp")
    return Incoming(
        device_id="",
        message_id=message_id,
        addresses=tuple(addresses),
        at=float(stamp) if stamp.isascii() and stamp.isdigit() and len(stamp) < 12 else time.time(),
        name=text_at(contact.get("profile"), "name") or None,
        **{"quoted_id": text_at(message.get("context"), "id") or None, **_content(message)},
    )


def _content(message: Mapping[str, Any]) -> dict[str, Any]:  # noqa: PLR0911  # one case for each type
    kind = text_at(message, "type") or next((name for name in ("text", "button", "interactive") if name in message), "")
    part = message.get(kind)
    if kind in _MEDIA:
        return _media(kind, part)
    match kind:
        case "text":
            return {"text": text_at(part, "body")}
        case "button":
            return {"kind": "button", "text": text_at(part, "text"), "choice": text_at(part, "payload") or None}
        case "interactive":
            return _interactive(part)
        case "reaction":
            return {
                "kind": "reaction",
                "text": text_at(part, "emoji"),
                "quoted_id": text_at(part, "message_id") or None,
            }
        case "location":
            return {"kind": "location", "details": _location(part)}
        case "contacts":
            return _contacts(part)
        case _:
            return {"kind": "other", "details": {"type": storable(kind, MAX_NAME)}}


def _interactive(part: Any) -> dict[str, Any]:
    for name, kind in (("button_reply", "button"), ("list_reply", "list")):
        chosen = part.get(name) if isinstance(part, dict) else None
        if isinstance(chosen, dict):
            return {"kind": kind, "text": text_at(chosen, "title"), "choice": text_at(chosen, "id") or None}
    return {"kind": "other", "details": {"type": storable(text_at(part, "type") or "interactive", MAX_NAME)}}


def _media(kind: str, part: Any) -> dict[str, Any]:
    voice = kind == "audio" and isinstance(part, dict) and part.get("voice") is True
    media = IncomingMedia(mime_type=text_at(part, "mime_type") or None, name=text_at(part, "filename") or None)
    return {"kind": "voice" if voice else kind, "text": text_at(part, "caption"), "media": media}


def _location(part: Any) -> dict[str, Any]:
    place: dict[str, Any] = {}
    for name in ("latitude", "longitude"):
        degrees = part.get(name) if isinstance(part, dict) else None
        # NaN compares false with everything.
        place[name] = degrees if isinstance(degrees, int | float) and abs(degrees) < 1000 else None
    for name in ("name", "address"):
        if text := text_at(part, name):
            place[name] = storable(text, MAX_NAME)
    return place


def _contacts(part: Any) -> dict[str, Any]:
    found = []
    for contact in part[:_MOST_CONTACTS] if isinstance(part, list) else []:
        if isinstance(contact, dict):
            name = text_at(contact.get("name"), "formatted_name")
            phones = [storable(text_at(phone, "phone"), MAX_NAME) for phone in objects_at(contact, "phones")]
            found.append({"name": storable(name, MAX_NAME), "phones": phones[:_MOST_CONTACTS]})
    return {"kind": "contact", "text": found[0]["name"] if found else "", "details": {"contacts": found}}


def objects_at(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The objects in the list of this name."""
    found = value.get(name) if isinstance(value, dict) else None
    return (one for one in found if isinstance(one, dict)) if isinstance(found, list) else iter(())


def text_at(value: Any, name: str) -> str:
    """The text of this name; empty if there is none."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
