"""Reads messages and preferences in notifications of the Cloud API's webhook. Pure.

The fields are those of Meta's webhook reference ("messages object"): id, from, timestamp, type, and an object named like the
type; context.id is the message that a reply or a button refers to. What has an unexpected type is skipped.

A person has up to three names at Meta (its page on business-scoped user ids): the phone number in `from`, which is left out for
people with a username; `wa_id` of the contact, which may be another number; and the business-scoped id, in `from_user_id` and in
`user_id` of the contact. All are addresses of the sender.

A message in a group has `group_id` (its page on messages of groups), which is an opaque text.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from shardd.incoming import MAX_NAME, Incoming, IncomingMedia, MetaMedia
from shardd.persons import BUSINESS_SERVER
from shardd.storable import storable

_NUMBER: Final = re.compile(r"\+?([0-9]{1,20})")
"""Meta's examples have no plus, and its tables of parameters have one."""
_USER_ID: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")
"""A business-scoped user id: a country, and up to 128 letters and digits."""
NO_ID: Final = "no-id-"
"""Begins the name of a message to which Meta gave none; 0010_inbox.sql quotes none of these."""
_MEDIA: Final = frozenset({"image", "video", "audio", "document", "sticker"})
_MEDIA_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""It becomes part of a URL; Meta's are digits."""
_MOST_CONTACTS: Final = 20
_CHANGES: Final = frozenset({"user_changed_number", "customer_changed_number"})
"""Meta's page on system messages, updated on 21 May 2026, has the first; earlier versions of the API sent the second."""


def read_message(message: Mapping[str, Any], contacts: list[Mapping[str, Any]]) -> Incoming | None:
    """A message, without its device; None: it has no sender.

    `contacts`: of the notification, which have the senders' names, and their `wa_id` where it differs from the number. Meta's
    reference gives every type of message an id; one without it, perhaps an opt-out, is named after its content, which is the same
    when Meta repeats it.
    """
    message_id, sender, user = text_at(message, "id"), number_at(message, "from"), text_at(message, "from_user_id")
    contact = _contact_of(sender, user, contacts)
    addresses = addresses_of((sender, number_at(contact, "wa_id")), (user, text_at(contact, "user_id")))
    if not addresses:
        return None
    if not message_id:
        message_id = f"{NO_ID}{sha256(json.dumps(message, sort_keys=True).encode()).hexdigest()}"
    at, timed = _moment(message.get("timestamp"))
    group = message.get("group_id")
    return Incoming(
        device_id="",
        message_id=message_id,
        addresses=addresses,
        at=at,
        timed=timed,
        group=str(group) if group else None,
        name=text_at(contact.get("profile"), "name") or None,
        **{"quoted_id": text_at(message.get("context"), "id") or None, **_content(message)},
    )


def read_preference(preference: Mapping[str, Any], contacts: list[Mapping[str, Any]]) -> Incoming | None:
    """That a person stopped or resumed marketing messages in WhatsApp itself; None: it is of another kind.

    `stop` is an opt-out. `resume` lifts none here: the person may have opted out by a message, too.
    """
    number, user = number_at(preference, "wa_id"), text_at(preference, "user_id")
    contact = _contact_of(number, user, contacts)
    addresses = addresses_of((number, number_at(contact, "wa_id")), (user, text_at(contact, "user_id")))
    value, stamp = text_at(preference, "value"), preference.get("timestamp")
    if not addresses or value not in ("stop", "resume") or text_at(preference, "category") != "marketing_messages":
        return None
    return Incoming(
        device_id="",
        message_id=f"preference-{addresses[0]}-{stamp if isinstance(stamp, int | str) else ''}",
        addresses=addresses,
        at=_moment(stamp)[0],
        kind="preference",
        text=value,
        name=text_at(contact.get("profile"), "name") or None,
        details={"category": "marketing_messages", "detail": storable(text_at(preference, "detail"), MAX_NAME)},
        opt_out=value == "stop",
    )


def addresses_of(numbers: Iterable[str], users: Iterable[str]) -> tuple[str, ...]:
    """The addresses of one person, each once: phone numbers, then business-scoped ids."""
    found = [f"+{match[1]}" for number in numbers if (match := _NUMBER.fullmatch(number))]
    found += [f"{user}@{BUSINESS_SERVER}" for user in users if _USER_ID.fullmatch(user)]
    return tuple(dict.fromkeys(found))


def _contact_of(number: str, user: str, contacts: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    for read, name, value in ((number_at, "wa_id", number), (text_at, "user_id", user)):
        for contact in contacts:
            if value and read(contact, name) == value:
                return contact
    return contacts[0] if len(contacts) == 1 else {}


def _moment(stamp: object) -> tuple[float, bool]:
    """Now, and False, without a time. Meta writes POSIX seconds as text, and of preferences as a number."""
    digits = str(stamp) if isinstance(stamp, str | int) else ""
    timed = digits.isascii() and digits.isdigit() and len(digits) < 12
    return float(digits) if timed else time.time(), timed


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
        case "system":
            return _system(part)
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
    media_id = text_at(part, "id")
    media = IncomingMedia(
        mime_type=text_at(part, "mime_type") or None,
        name=text_at(part, "filename") or None,
        source=MetaMedia(media_id) if _MEDIA_ID.fullmatch(media_id) else None,
    )
    return {"kind": "voice" if voice else kind, "text": text_at(part, "caption"), "media": media}


def _system(part: Any) -> dict[str, Any]:
    """What Meta itself says: of a changed number, its page on system messages has the new one in `wa_id`."""
    what = text_at(part, "type")
    number = number_at(part, "wa_id") if what in _CHANGES else ""
    return {
        "kind": "other",
        "text": text_at(part, "body"),
        "details": {"type": storable(what or "system", MAX_NAME)} | ({"number": f"+{number}"} if number else {}),
        "new_number": f"+{number}" if number else None,
    }


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


def number_at(value: Any, name: str) -> str:
    """The digits of the phone number of this name; empty if there is none."""
    found = value.get(name) if isinstance(value, dict) else None
    match = _NUMBER.fullmatch(str(found)) if isinstance(found, str | int) and not isinstance(found, bool) else None
    return match[1] if match else ""


def text_at(value: Any, name: str) -> str:
    """The text of this name; empty if there is none."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
