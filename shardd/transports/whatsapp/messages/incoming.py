"""What people write to a device: the messages of the library as `Incoming`, and the backlog after a login."""

from __future__ import annotations

import asyncio
import re
import time
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

import msgspec

from shardd.incoming import MAX_NAME, Incoming, IncomingMedia, MediaSource
from shardd.persons import GROUP_SERVER, HIDDEN_SERVER, USER_SERVER
from shardd.storable import storable
from shardd.tasks import wait_for_event

PATIENCE: Final = 3.0
"""Seconds that a send waits for them."""
COMPLETE: Final = 30.0
"""Seconds that all of them may take if nothing waits for them."""
STATUS: Final = "status"
_BROADCAST_SERVER: Final = "broadcast"
_WRAPPER: Final = "FutureProofMessage"
"""The type of messages around a message (waE2E.proto): ephemeral, view once, with a caption, edited …"""
_DEPTH: Final = 6
"""Nested wrappers; real messages have two."""
_MOST_CONTACTS: Final = 20
_MAX_VCARD: Final = 4000
"""Characters; one with a photo has more."""
_MEDIA: Final = MappingProxyType(
    {
        "imageMessage": "image",
        "videoMessage": "video",
        "ptvMessage": "video",
        "audioMessage": "audio",
        "documentMessage": "document",
        "stickerMessage": "sticker",
    }
)
_MEDIA_KINDS: Final = frozenset({*_MEDIA.values(), "voice"})
_KEYS: Final = MappingProxyType(
    {
        "imageMessage": "image",
        "stickerMessage": "image",
        "videoMessage": "video",
        "ptvMessage": "video",
        "audioMessage": "audio",
        "documentMessage": "document",
    }
)
"""Which keys a file is encrypted with (whatsmeow, download.go: classToMediaType)."""
_DIRECT_PATH: Final = re.compile(r"/[!-~]{1,2000}")
"""A path and a query of visible ASCII."""
_KEY_SIZE: Final = 32
"""Bytes of a media key, and of a SHA-256."""
VIEW_ONCE: Final = "it is to be viewed once"
NOWHERE: Final = "the message does not say where it is, or not with which key it can be read"
_TECHNICAL: Final = frozenset(
    {
        "fastRatchetKeySenderKeyDistributionMessage",
        "groupRootKeyShare",
        "messageContextInfo",
        "messageHistoryBundle",
        "messageHistoryNotice",
        "protocolMessage",
        "rootSecretDistributeMessage",
        "senderKeyDistributionMessage",
        "stickerSyncRmrMessage",
    }
)
"""Fields that no person wrote."""


def read_incoming(event: Any, device_id: str, *, media: bool = False) -> Incoming | None:
    """A message event of the library; None if it is neither a message nor a reaction, an edit or a deletion of one.

    `media`: with the source of its file. Its values are the sender's, of any length and with any bytes: raises nothing for them.
    """
    source, info = event.Info.MessageSource, event.Info
    server = source.Chat.Server
    status = server == _BROADCAST_SERVER and source.Chat.User == STATUS
    group = f"{text_of(source.Chat.User)}@{server}" if server == GROUP_SERVER else None
    if group is None and server not in (USER_SERVER, HIDDEN_SERVER, _BROADCAST_SERVER):
        return None
    content = content_of(event.Message)
    if content is None:
        return None
    if media and content.get("kind") in _MEDIA_KINDS:
        once = event.IsViewOnce or event.IsViewOnceV2 or event.IsViewOnceV2Extension
        content["media"] = _with_source(content["media"], event.Message, once=once)
    # What the phone writes to a person belongs to that person's chat.
    theirs = (
        (source.RecipientAlt, source.Chat) if source.IsFromMe and group is None else (source.SenderAlt, source.Sender)
    )
    return Incoming(
        device_id=device_id,
        message_id=text_of(info.ID),
        addresses=_addresses(*theirs),
        # Milliseconds, unlike a receipt's.
        at=info.Timestamp / 1000 or time.time(),
        name=text_of(info.Pushname) or None,
        group=group,
        own=bool(source.IsFromMe),
        status=status,
        **content,
    )


def _addresses(*jids: Any) -> tuple[str, ...]:
    users = {jid.Server: text_of(jid.User) for jid in jids if jid.User}
    number, hidden = users.get(USER_SERVER), users.get(HIDDEN_SERVER)
    return tuple(filter(None, (number and f"+{number}", hidden and f"{hidden}@{HIDDEN_SERVER}")))


def content_of(message: Any) -> dict[str, Any] | None:
    """The fields of `Incoming` that follow from the content; None: it has none."""
    message = _unwrapped(message)
    if message.HasField("protocolMessage"):
        return _change(message.protocolMessage)
    fields = [(field.name, value) for field, value in message.ListFields() if field.name not in _TECHNICAL]
    if not fields:
        return None
    name, value = fields[0]
    content = _read_field(name, value)
    quoted = "" if isinstance(value, str | bytes) or name == "reactionMessage" else _quoted_id(value)
    return {"quoted_id": quoted, **content} if quoted else content


def _unwrapped(message: Any) -> Any:
    for _ in range(_DEPTH):
        if message.HasField("deviceSentMessage"):
            message = message.deviceSentMessage.message
            continue
        inner = next(
            (
                value
                for field, value in message.ListFields()
                if field.message_type and field.message_type.name == _WRAPPER
            ),
            None,
        )
        if inner is None:
            break
        message = inner.message
    return message


def _change(protocol: Any) -> dict[str, Any] | None:
    """An edit or a deletion of an earlier message."""
    target = text_of(protocol.key.ID)
    if protocol.HasField("editedMessage"):
        edited = content_of(protocol.editedMessage) or {}
        return {**edited, "kind": "edit", "quoted_id": target or None}
    if target and protocol.HasField("type") and protocol.type == protocol.REVOKE:
        return {"kind": "delete", "quoted_id": target}
    return None


def _read_field(name: str, value: Any) -> dict[str, Any]:  # noqa: C901, PLR0911  # one case for each kind of message
    if name in _MEDIA:
        return _media(name, value)
    match name:
        case "conversation":
            return {"text": text_of(value)}
        case "extendedTextMessage":
            return {"text": text_of(value.text)}
        case "reactionMessage":
            return {"kind": "reaction", "text": text_of(value.text), "quoted_id": text_of(value.key.ID) or None}
        case "buttonsResponseMessage":
            return _choice("button", value.selectedDisplayText, value.selectedButtonID)
        case "templateButtonReplyMessage":
            return _choice("button", value.selectedDisplayText, value.selectedID)
        case "interactiveResponseMessage":
            return _choice("button", value.body.text, _flow_id(value.nativeFlowResponseMessage.paramsJSON))
        case "listResponseMessage":
            return _choice("list", value.title, value.singleSelectReply.selectedRowID)
        case "locationMessage" | "liveLocationMessage":
            return {"kind": "location", "details": _location(value)}
        case "contactMessage":
            return {"kind": "contact", "text": text_of(value.displayName), "details": {"contacts": [_contact(value)]}}
        case "contactsArrayMessage":
            contacts = [_contact(one) for one in value.contacts[:_MOST_CONTACTS]]
            return {"kind": "contact", "text": text_of(value.displayName), "details": {"contacts": contacts}}
        case _:
            return {"kind": "other", "details": {"type": name}}


def _media(name: str, value: Any) -> dict[str, Any]:
    kind = _MEDIA[name]
    if kind == "audio" and value.PTT:
        kind = "voice"
    media = IncomingMedia(
        mime_type=text_of(value.mimetype) or None,
        size=value.fileLength or None,
        name=(text_of(value.fileName) or text_of(value.title) or None) if kind == "document" else None,
    )
    return {"kind": kind, "text": text_of(getattr(value, "caption", "")), "media": media}


def _with_source(media: IncomingMedia, message: Any, *, once: bool) -> IncomingMedia:
    message = _unwrapped(message)
    name, value = next((field.name, value) for field, value in message.ListFields() if field.name in _MEDIA)
    if once or getattr(value, "viewOnce", False):
        return msgspec.structs.replace(media, unavailable=VIEW_ONCE)
    secrets = bytes(value.mediaKey), bytes(value.fileSHA256), bytes(value.fileEncSHA256)
    path = text_of(value.directPath)
    if _DIRECT_PATH.fullmatch(path) is None or any(len(secret) != _KEY_SIZE for secret in secrets):
        return msgspec.structs.replace(media, unavailable=NOWHERE)
    return msgspec.structs.replace(media, source=MediaSource(_KEYS[name], path, *secrets))


def _choice(kind: str, title: Any, choice: Any) -> dict[str, Any]:
    return {"kind": kind, "text": text_of(title), "choice": text_of(choice) or None}


def _flow_id(params: Any) -> str:
    try:
        found = msgspec.json.decode(text_of(params), type=dict[str, Any]).get("id")
    except (msgspec.MsgspecError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def _location(value: Any) -> dict[str, Any]:
    place: dict[str, Any] = {"latitude": value.degreesLatitude, "longitude": value.degreesLongitude}
    place = {name: degrees if isfinite(degrees) else None for name, degrees in place.items()}
    for name in ("name", "address"):
        if text := text_of(getattr(value, name, "")):
            place[name] = storable(text, MAX_NAME)
    return place


def _contact(value: Any) -> dict[str, str]:
    return {
        "name": storable(text_of(value.displayName), MAX_NAME),
        "vcard": storable(text_of(value.vcard), _MAX_VCARD),
    }


def _quoted_id(value: Any) -> str:
    context = getattr(value, "contextInfo", None)
    return "" if context is None else text_of(context.stanzaID)


def text_of(value: Any) -> str:
    """A text of the library. One that is not UTF-8, which the protocol does not check, is bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Backlog:
    """The messages that waited at WhatsApp while the device of one client was not logged in.

    They arrive right after the login, and then a report that these were all, which also comes if nothing waited: Baileys logs it
    as "handled 0 offline messages/notifications" (`CB:ib,,offline`). One of them may be an opt-out, so the first send of a client
    waits for the report. Their announcement (`offline_preview`) proves nothing: it may be late, too.
    """

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._complete = asyncio.Event()

    def finish(self, _: Any = None) -> None:
        """OfflineSyncCompleted, or the connection is gone: nothing more comes."""
        self._over.set()
        self._complete.set()

    async def wait_for_end(self, timeout: float = COMPLETE) -> bool:
        """Wait until all have arrived; False: they have not within `timeout` seconds."""
        return await wait_for_event(self._complete, timeout)

    async def wait(self) -> None:
        """Wait until all have arrived or the time for it is up; returns at once when called again."""
        await wait_for_event(self._over, PATIENCE)
        self._over.set()
