"""What a file is, and as what it may be sent.

Its bytes decide. The row's MIME type, the server's and the file name count only for bytes that libmagic does not recognise,
and for documents, which may be anything. libmagic does not tell sound from video in an MP4, nor Opus from other codecs in an
Ogg: those headers are read here. mutagen was looked at: it looks for sound only, and reads as many boxes as a file claims to
have.
"""

from __future__ import annotations

import asyncio
import mimetypes
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import magic

from shardd.errors import PermanentError
from shardd.ipc import JobSpec
from shardd.logs import get_logger
from shardd.transports.details import content_error
from shardd.transports.whatsapp.media.memory import Media
from shardd.transports.whatsapp.media.previews import Previews
from shardd.transports.whatsapp.media.recordings import Recordings

log = get_logger(__name__)

VOICE: Final = "audio/ogg; codecs=opus"
"""The only form in which phones play a voice message."""
IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
UNKNOWN: Final = frozenset({"application/octet-stream", "binary/octet-stream"})
HEAD: Final = 4096
"""Bytes that libmagic reads."""
MAX_BOXES: Final = 2000
"""Boxes of an MP4 file that are read; they are nested, and their sizes are the file's own claim."""
MAX_PIXELS: Final = 100_000_000
"""An image beyond this is refused: no phone shows it."""

# libmagic's names that differ from those that phones use.
_NAMES: Final = {
    "audio/x-m4a": "audio/mp4",
    "audio/x-hx-aac-adts": "audio/aac",
    "application/ogg": "audio/ogg",
    "video/x-m4v": "video/mp4",
}
_SOUND_ONLY: Final = {"video/3gpp": "audio/3gpp", "video/3gpp2": "audio/3gpp2"}
_MIME_TYPE: Final = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}(;[ -~]{0,200})?", re.IGNORECASE
)
_PAGES: Final = frozenset({"text/html", "text/plain", "text/xml", "application/json"})
_CONVERT: Final = "convert it, such as with: ffmpeg -i FILE -c:a libopus FILE.ogg"


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a message says about its file; None is left out.

    `preview`: a small JPEG; `size`: width and height in pixels, as shown; `seconds`: of audio or video; `waveform`: of voice.
    """

    mime_type: str
    preview: bytes | None = None
    size: tuple[int, int] | None = None
    seconds: int | None = None
    waveform: bytes | None = None


async def inspect(job: JobSpec, media: Media, previews: Previews, recordings: Recordings) -> MediaInfo:
    """Raises PermanentError when the file does not fit the job's kind."""
    mime_type = await asyncio.to_thread(sent_as, job, media)
    if job.kind in {"audio", "voice", "video"}:
        return await _recording(job, media, mime_type, recordings)
    picture = await previews.make(media.data) if job.kind == "image" else None
    if picture is None:
        return MediaInfo(mime_type)
    if picture.damaged:
        raise content_error("the media is not a readable image: send JPEG or PNG, or send it as a document")
    if picture.width * picture.height > MAX_PIXELS:
        raise content_error(
            f"the image has {picture.width} by {picture.height} pixels, which is too much: send it as a document"
        )
    return MediaInfo(mime_type, picture.preview, (picture.width, picture.height) if picture.width else None)


async def _recording(job: JobSpec, media: Media, mime_type: str, recordings: Recordings) -> MediaInfo:
    found = await recordings.read(media.data, job.kind, mime_type)
    if found is None:
        return MediaInfo(mime_type)
    if found.error:
        log.warning("media not fully analysed", action="preview", job=job.id, kind=job.kind, error=found.error)
    size = (found.width, found.height) if found.width else None
    return MediaInfo(mime_type, found.preview, size, found.seconds or None, found.waveform)


def sent_as(job: JobSpec, media: Media) -> str:
    """The MIME type as which the media of a job is sent. Raises PermanentError when the file does not fit the job's kind."""
    if not media.data:
        raise content_error("the media is empty")
    if job.mime_type and not _MIME_TYPE.fullmatch(job.mime_type):
        raise content_error(
            f"mime_type {job.mime_type[:80]!r} is not a MIME type; write one such as application/pdf, or leave it out"
        )
    found = detect_type(media.data)
    if job.kind == "document":
        return job.mime_type or _hint(media.mime_type) or found
    if job.kind == "voice":
        if not is_ogg_opus(media.data):
            raise _mismatch(job, found, f"phones play only Ogg with Opus as voice: {_CONVERT}, or send it as audio")
        return VOICE
    if job.kind == "image":
        if found not in IMAGES:
            raise _mismatch(job, found, "send JPEG or PNG, or send it as a document")
        return found
    if found in UNKNOWN:
        found = _claimed(job, media)
    if found.partition("/")[0] != job.kind:
        raise _mismatch(job, found, f"send it as {_other_kind(found)}a document")
    # The row may be more specific (audio/ogg; codecs=opus), but not contradict.
    row = job.mime_type or ""
    return row if row.partition(";")[0].strip().lower() == found else found


def detect_type(data: bytes) -> str:
    """The MIME type of a file by its bytes."""
    found = str(magic.from_buffer(data[:HEAD], mime=True)).lower()  # libmagic 5.46 calls audio/amr audio/AMR
    found = _NAMES.get(found, found)
    if data[4:8] == b"ftyp" and found.partition("/")[0] in {"audio", "video"}:
        tracks = track_kinds(data)
        if b"vide" in tracks:
            return found.replace("audio/", "video/")
        if b"soun" in tracks:
            return found if found.startswith("audio/") else _SOUND_ONLY.get(found, "audio/mp4")
    return found


def is_ogg_opus(data: bytes) -> bool:
    """Whether a file is an Ogg whose first stream is Opus (RFC 3533, section 6; RFC 7845, section 5.1)."""
    # A page header of 27 bytes, of which byte 5 marks a stream's first page and byte 26 counts the segments; their table follows.
    first = data[:5] == b"OggS\0" and len(data) > 27 and bool(data[5] & 2)
    return first and data[27 + data[26] : 35 + data[26]] == b"OpusHead"


def track_kinds(data: bytes) -> set[bytes]:
    """The handlers of the tracks of an MP4 or 3GP file (ISO/IEC 14496-12), such as `soun` and `vide`."""
    left = [MAX_BOXES]
    view = memoryview(data)
    return {
        bytes(handler[8:12])
        for movie in _boxes(view, b"moov", left)
        for track in _boxes(movie, b"trak", left)
        for media in _boxes(track, b"mdia", left)
        for handler in _boxes(media, b"hdlr", left)
    }


def _boxes(view: memoryview, wanted: bytes, left: list[int]) -> Iterator[memoryview]:
    """The contents of the boxes of one type; `left`: how many boxes may still be read."""
    at = 0
    while at + 8 <= len(view) and left[0] > 0:
        left[0] -= 1
        size, kind = struct.unpack_from(">I4s", view, at)
        start = at + 8
        if size == 1 and start + 8 <= len(view):
            (size,) = struct.unpack_from(">Q", view, start)
            start += 8
        end = len(view) if size == 0 else at + size
        if end < start:
            return
        if kind == wanted:
            yield view[start:end]
        at = end


def _hint(mime_type: str | None) -> str | None:
    return mime_type if mime_type and mime_type not in UNKNOWN and _MIME_TYPE.fullmatch(mime_type) else None


def _claimed(job: JobSpec, media: Media) -> str:
    """The claimed type of a file that libmagic does not recognise."""
    by_name, _ = mimetypes.guess_type(job.file_name or media.file_name or "")
    for claim in (job.mime_type, media.mime_type, by_name):
        if (hint := _hint(claim)) and hint.partition("/")[0].lower() == job.kind:
            return hint.lower()
    raise content_error(
        f"kind is {job.kind!r}, but the type of the media is not recognised: set mime_type, or send it as a document"
    )


def _other_kind(found: str) -> str:
    kind = found.partition("/")[0]
    return f"{kind}, or as " if kind in {"audio", "video", "image"} else ""


def _mismatch(job: JobSpec, found: str, fix: str) -> PermanentError:
    page = ", perhaps a page that the server sent instead of the file" if found in _PAGES else ""
    return content_error(f"kind is {job.kind!r}, but the media is {found}{page}; {fix}")
