"""Reads what Wablas and Whacenter post to a webhook: messages that people wrote, and statuses of messages. Pure.

Wablas documents both in its samples ("all data POST sent from https://….wablas.com"): messages with id, phone, message, pushName,
isGroup, group, messageType, file, url, mimeType, deviceId, sender, timestamp, and isFromMe; statuses (tracking) with id, phone,
status and deviceId, where status is pending, sent, received, read, cancel or reject. Its clients disagree on whether `sent` means
more than that the message left Wablas, so it is ignored here.

Whacenter publishes no reference. Its clients read from, to, message, media and timestamp, and no id; none records a status,
so none is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec

from shardd import ipc
from shardd.errors import ErrorClass, PermanentError
from shardd.incoming import MAX_NAME, Incoming, IncomingMedia
from shardd.persons import GROUP_SERVER, HIDDEN_SERVER
from shardd.phone_numbers import parse_recipient
from shardd.storable import storable

WABLAS_STATUSES: Final = MappingProxyType(
    {"received": "delivered", "read": "read", "cancel": "failed", "reject": "failed"}
)
"""The kind of receipt of each status; the others are ignored."""
_KINDS: Final = frozenset({"image", "video", "audio", "document", "location", "sticker", "contact"})
_DIGITS: Final = re.compile(r"[1-9][0-9]{5,19}", re.ASCII)
_LID_DIGITS: Final = 13
"""So many digits or more that no country can have are a LID without its server."""
_NO_PERSON: Final = ("@broadcast", "@newsletter")
_GROUP: Final = re.compile(r"[0-9-]{5,40}(@g\.us)?")
_MAX_ID: Final = 200

Report = Incoming | ipc.Receipt


def read_report(
    transport: str, device_id: str, body: Mapping[str, Any], now: float, *, region: str | None = None
) -> Report | None:
    """What was reported for a device; None: nothing of use. `now`: POSIX seconds; `region`: of numbers without country code.

    Of a sender who cannot be read, the message has no address, and `details` has the text.
    """
    if transport == "wablas" and _is_status(body):
        return _wablas_status(device_id, body, now)
    written = _text(body, "phone" if transport == "wablas" else "from").strip()
    if not written or written.endswith(_NO_PERSON):
        return None
    message = (_wablas_message if transport == "wablas" else _whacenter_message)(device_id, body, now)
    if (group := written.lower()).endswith(f"@{GROUP_SERVER}"):
        # Reported without `isGroup`. Which member wrote it is unknown, and none speaks for the group.
        message = msgspec.structs.replace(message, group=_group({"id": group}, device_id))
        return msgspec.structs.replace(message, details={"sender": storable(written, MAX_NAME)})
    if (address := _address(written, region)) is None:
        return msgspec.structs.replace(message, details={"sender": storable(written, MAX_NAME)})
    return msgspec.structs.replace(message, addresses=(address,))


def _is_status(body: Mapping[str, Any]) -> bool:
    return "status" in body and "message" not in body


def _wablas_status(device_id: str, body: Mapping[str, Any], now: float) -> ipc.Receipt | None:
    message_id, word = _text(body, "id"), _text(body, "status").lower()
    kind = WABLAS_STATUSES.get(word)
    if kind is None or not 0 < len(message_id) <= _MAX_ID or not message_id.isprintable():
        return None
    error = f"Wablas reports: {word}" if kind == "failed" else None
    return ipc.Receipt(device_id, [message_id], kind, now, error, ErrorClass.SERVER.value if error else None)


def _wablas_message(device_id: str, body: Mapping[str, Any], now: float) -> Incoming:
    at = _time(body.get("timestamp"))
    kind, text = _text(body, "messageType").lower(), _text(body, "message")
    media = None
    if _text(body, "file") or _text(body, "url"):
        media = IncomingMedia(mime_type=_text(body, "mimeType") or None, name=_text(body, "file") or None)
    group = body.get("group")
    return Incoming(
        device_id=device_id,
        message_id=_text(body, "id") or _made_id("wablas", body, now),
        addresses=(),
        at=now if at is None else at,
        timed=at is not None,
        identified=bool(_text(body, "id") or _text(body, "timestamp")),
        # Texts come under several types: text, conversation, extendedTextMessage, chat, button, list.
        kind=kind if kind in _KINDS else "text" if text and media is None else "other",
        text=text,
        name=_text(body, "pushName") or None,
        group=_group(group, device_id) if _true(body.get("isGroup")) else None,
        own=_true(body.get("isFromMe")),
        media=media,
    )


def _whacenter_message(device_id: str, body: Mapping[str, Any], now: float) -> Incoming:
    media = _text(body, "media")
    at = _time(body.get("timestamp"))
    return Incoming(
        device_id=device_id,
        message_id=_text(body, "id") or _made_id("whacenter", body, now),
        addresses=(),
        at=now if at is None else at,
        timed=at is not None,
        identified=bool(_text(body, "id") or _text(body, "timestamp")),
        kind="other" if media else "text",
        text=_text(body, "message"),
        name=_text(body, "name") or None,
        media=IncomingMedia() if media else None,
    )


def _made_id(transport: str, body: Mapping[str, Any], now: float) -> str:
    """An id of a message that came without one: the same for a repetition, if it has the time at which it was written."""
    parts = [_text(body, name) for name in ("from", "phone", "message", "media", "timestamp")]
    stamp = parts[-1] or repr(now)
    return f"{transport}-{hashlib.sha256(chr(0).join([*parts[:-1], stamp]).encode()).hexdigest()[:32]}"


def _address(written: str, region: str | None) -> str | None:
    """The address of a sender in any spelling. Digits alone that do not begin with 0 have their country code."""
    digits = _DIGITS.fullmatch(written) is not None
    try:
        found = parse_recipient(f"+{written}" if digits else written, region)
    except PermanentError:
        if not digits:
            return None
    else:
        return found.jid if found.number is None else f"+{found.number}"
    return f"{written}@{HIDDEN_SERVER}" if len(written) >= _LID_DIGITS else f"+{written}"


def _group(group: Any, device_id: str) -> str:
    """The group's address; one without an id is a group all the same."""
    found = next((text for name in ("group_id", "id", "groupId") if (text := _text(group, name))), "")
    return f"{found.removesuffix('@g.us')}@g.us" if _GROUP.fullmatch(found) else f"{device_id}@g.us"


def _true(value: Any) -> bool:
    """Forms have no booleans."""
    return value is True or (isinstance(value, str) and value.lower() in {"true", "1"})


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else ""


def _time(value: Any) -> float | None:
    """POSIX seconds; None: the platform's time cannot be read, or has no time zone."""
    text = str(value) if isinstance(value, str | int) else ""
    if text.isascii() and text.isdigit() and 9 < len(text) < 14:
        seconds = float(text)
        return seconds / 1000 if seconds > 1e11 else seconds
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.astimezone(UTC).timestamp() if at.tzinfo is not None else None
