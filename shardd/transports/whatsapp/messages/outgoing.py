"""Jobs as WhatsApp messages. Media is uploaded before, so these functions only build messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from neonize.proto.Neonize_pb2 import UploadResponse
from neonize.proto.waCommon.WACommon_pb2 import MessageKey
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import (
    AudioMessage,
    ContactMessage,
    DocumentMessage,
    ExtendedTextMessage,
    ImageMessage,
    LocationMessage,
    Message,
    ProtocolMessage,
    VideoMessage,
)
from neonize.utils.enum import MediaType

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.transports.details import read_contact, read_location, read_target
from shardd.transports.whatsapp.links.previews import LinkPreview
from shardd.transports.whatsapp.media.file_names import safe_name
from shardd.transports.whatsapp.media.file_types import MediaInfo
from shardd.transports.whatsapp.media.memory import Media

MEDIA_TYPES: Final = MappingProxyType(
    {
        "image": MediaType.MediaImage,
        "video": MediaType.MediaVideo,
        "audio": MediaType.MediaAudio,
        "voice": MediaType.MediaAudio,
        "document": MediaType.MediaDocument,
    }
)
"""The kinds of jobs that carry media, and as what they are uploaded."""

REVOKE: Final = "revoke"
"""The kind of jobs that delete an earlier message for everyone."""


def needs_media(job: JobSpec) -> bool:
    """Whether this kind of job carries media. Raises PermanentError for a kind that WhatsApp does not have."""
    if job.kind in MEDIA_TYPES:
        if not job.media:
            raise PermanentError(f"kind is {job.kind!r}, but media is empty", error_class=ErrorClass.CONTENT)
        return True
    if job.kind == "template":
        raise PermanentError(
            "kind is 'template', which only the Cloud API has: write to a device of transport 'cloud_api', or send a text",
            error_class=ErrorClass.CONTENT,
        )
    if job.kind not in {"text", "location", "contact", REVOKE}:
        known = ", ".join(["text", *MEDIA_TYPES, "location", "contact", REVOKE])
        raise PermanentError(
            f"kind {job.kind!r} is not known to transport 'whatsapp': write one of {known}",
            error_class=ErrorClass.CONTENT,
        )
    return False


@dataclass(frozen=True, slots=True)
class ShownLink:
    """A link in a text, as it is written there, and the preview of its page."""

    text: str
    preview: LinkPreview


def plain_message(job: JobSpec, link: ShownLink | None = None) -> Message:
    """A message without media. Raises PermanentError when something in the job's details is missing or wrong.

    `link`: of a text.
    """
    if job.kind == "text":
        return Message(conversation=job.body) if link is None else _text_with_link(job.body, link)
    if job.kind == "location":
        place = read_location(job)
        location = LocationMessage(degreesLatitude=place.latitude, degreesLongitude=place.longitude, **place.labels)
        return Message(locationMessage=location)
    contact = read_contact(job)
    return Message(contactMessage=ContactMessage(displayName=contact.name, vcard=_vcard(contact.name, contact.phone)))


def revocation(job: JobSpec, jid: str) -> Message:
    """A message that deletes an earlier one for everyone; `jid`: the chat, as it is written to. Raises PermanentError.

    The key says that it is a message of this account, whichever of its devices sent it; the library marks the stanza accordingly
    (whatsmeow, send.go: getEditAttribute).
    """
    key = MessageKey(remoteJID=jid, fromMe=True, ID=read_target(job))
    return Message(protocolMessage=ProtocolMessage(type=ProtocolMessage.REVOKE, key=key))


def _text_with_link(body: str, link: ShownLink) -> Message:
    # The same fields as in Baileys (src/Utils/messages.ts) and mautrix-whatsapp (pkg/msgconv/urlpreview.go). What phones open is
    # the link in the text; the field for another one, canonicalUrl, is gone from the protocol.
    text = ExtendedTextMessage(text=body, matchedText=link.text, title=link.preview.title)
    if link.preview.description:
        text.description = link.preview.description
    if link.preview.picture:
        text.JPEGThumbnail = link.preview.picture
    return Message(extendedTextMessage=text)


def media_message(job: JobSpec, media: Media, info: MediaInfo, upload: UploadResponse) -> Message:
    """The message that carries what was uploaded."""
    common: dict[str, Any] = {
        "URL": upload.url,
        "directPath": upload.DirectPath,
        "mediaKey": upload.MediaKey,
        "fileEncSHA256": upload.FileEncSHA256,
        "fileSHA256": upload.FileSHA256,
        "fileLength": upload.FileLength,
        "mimetype": info.mime_type,
    }
    caption: dict[str, Any] = {"caption": job.body} if job.body else {}
    size = {"width": info.size[0], "height": info.size[1]} if info.size else {}
    match job.kind:
        case "image":
            return Message(imageMessage=ImageMessage(**common, **caption, **size, JPEGThumbnail=info.preview))
        case "video":
            return Message(
                videoMessage=VideoMessage(**common, **caption, **size, seconds=info.seconds, JPEGThumbnail=info.preview)
            )
        case "audio" | "voice":
            audio = AudioMessage(**common, PTT=job.kind == "voice", seconds=info.seconds, waveform=info.waveform)
            return Message(audioMessage=audio)
        case _:
            name = safe_name(job.file_name or "") or media.file_name or "document"
            return Message(documentMessage=DocumentMessage(**common, **caption, fileName=name, title=name))


def _vcard(name: str, phone: str) -> str:
    # RFC 2426: backslash, comma, semicolon and line breaks are escaped in a text value.
    escaped = re.sub(r"([\\,;])", r"\\\1", name).replace("\r", "").replace("\n", "\\n")
    lines = ["BEGIN:VCARD", "VERSION:3.0", f"N:;{escaped};;;", f"FN:{escaped}", f"TEL;type=CELL;waid={phone}:+{phone}"]
    return "\n".join([*lines, "END:VCARD"])
