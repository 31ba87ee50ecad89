"""The content of a decrypted message: its kind, its text, and its file, which is fetched from storage and checked."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from ..crypto.ratchet import CannotDecryptError
from ..record import LinkPreview, Media, Message
from ..state.media import MediaStore, open_file
from ..state.phones import e2e

_WRAPPERS = ("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "documentWithCaptionMessage", "editedMessage")
_MEDIA_FIELDS = {
    "imageMessage": "image",
    "videoMessage": "video",
    "audioMessage": "audio",
    "documentMessage": "document",
    "stickerMessage": "sticker",
}


def unwrap(message: e2e.Message) -> e2e.Message:
    """The message inside any wrappers, which only affect how it is displayed."""
    if message.HasField("deviceSentMessage"):
        message = message.deviceSentMessage.message
    for field in _WRAPPERS:
        if message.HasField(field):
            return unwrap(getattr(message, field).message)
    return message


def is_revocation(message: e2e.Message) -> bool:
    """Whether it deletes an earlier message for everyone; ``message``: without wrappers."""
    protocol = message.protocolMessage
    return bool(message.HasField("protocolMessage") and protocol.type == e2e.ProtocolMessage.REVOKE)


def describe(message: e2e.Message, storage: MediaStore, into: Message) -> None:
    """Write the kind, text and media of a decrypted message into its record."""
    message = unwrap(message)
    into.quoted_id = next(
        (part.contextInfo.stanzaID for field, part in message.ListFields() if "contextInfo" in _fields_of(field)), ""
    )
    if message.conversation or message.HasField("extendedTextMessage"):
        into.kind, into.text = "text", message.conversation or message.extendedTextMessage.text
        into.link = _link(message.extendedTextMessage)
        return
    for field, kind in _MEDIA_FIELDS.items():
        if message.HasField(field):
            part = getattr(message, field)
            into.kind = "voice" if kind == "audio" and part.PTT else kind
            into.text = getattr(part, "caption", "")
            into.media = _fetch(part, kind, storage, into)
            return
    if message.HasField("locationMessage"):
        place = message.locationMessage
        into.kind, into.text = "location", f"{place.degreesLatitude},{place.degreesLongitude} {place.name}".strip()
    elif message.HasField("contactMessage"):
        into.kind, into.text = "contact", message.contactMessage.vcard
    elif is_revocation(message):
        into.kind, into.revokes = "revoke", message.protocolMessage.key.ID
    else:
        into.kind = next((field.name for field, _ in message.ListFields()), "empty")


def _link(text: Any) -> LinkPreview | None:
    """Phones show it below a text that contains the link, if it has a title."""
    if not text.title or not text.matchedText or text.matchedText not in text.text:
        return None
    thumbnail = base64.b64encode(text.JPEGThumbnail).decode()
    return LinkPreview(text.matchedText, text.title, text.description, thumbnail)


def _fields_of(field: Any) -> Any:
    return field.message_type.fields_by_name if field.message_type else ()


def _fetch(part: Any, kind: str, storage: MediaStore, into: Message) -> Media:
    media = Media(part.mimetype, part.fileLength, part.fileSHA256.hex(), getattr(part, "fileName", ""))
    media.width, media.height = getattr(part, "width", 0), getattr(part, "height", 0)
    media.thumbnail = base64.b64encode(getattr(part, "JPEGThumbnail", b"")).decode()
    media.seconds, media.waveform = (
        getattr(part, "seconds", 0),
        base64.b64encode(getattr(part, "waveform", b"")).decode(),
    )
    blob = storage.get(part.directPath)
    if blob is None:
        into.error = f"no file at {part.directPath}"
        return media
    try:
        plain = open_file(blob, part.mediaKey, kind)
    except CannotDecryptError as error:
        into.error = str(error)
        return media
    media.intact = hashlib.sha256(plain).digest() == part.fileSHA256 and len(plain) == part.fileLength
    return media
