"""What a file is, and as what it may be sent.

What its bytes say counts. What the row, the server or the name say is asked only about bytes that libmagic does not know, and
for documents, which may be anything.
"""

from __future__ import annotations

import mimetypes
import re
import struct
from collections.abc import Iterator
from typing import Final

import magic

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.media.fetcher import Media

VOICE: Final = "audio/ogg; codecs=opus"
"""The only form in which phones play a voice message."""
IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
UNKNOWN: Final = frozenset({"application/octet-stream", "binary/octet-stream"})
HEAD: Final = 4096
"""Bytes that libmagic looks at."""
MAX_BOXES: Final = 2000
"""Boxes of an MP4 file that are looked at; they lie side by side and in each other, and their sizes are the file's own claim."""

# What libmagic calls otherwise than phones do.
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


def sent_as(job: JobSpec, media: Media) -> str:
    """The MIME type as which the media of a job is sent. Raises PermanentError when it is not what the job's kind says."""
    if not media.data:
        raise PermanentError("the media is empty", error_class=ErrorClass.CONTENT)
    if job.mime_type and not _MIME_TYPE.fullmatch(job.mime_type):
        raise PermanentError(
            f"mime_type {job.mime_type[:80]!r} is not a MIME type; write one such as application/pdf, or leave it out",
            error_class=ErrorClass.CONTENT,
        )
    found = what_it_is(media.data)
    if job.kind == "document":
        return job.mime_type or _hint(media.mime_type) or found
    if job.kind == "voice":
        if not is_ogg_opus(media.data):
            raise _another(job, found, f"phones play only Ogg with Opus as voice: {_CONVERT}, or send it as audio")
        return VOICE
    if job.kind == "image":
        if found not in IMAGES:
            raise _another(job, found, "send JPEG or PNG, or send it as a document")
        return found
    if found in UNKNOWN:
        found = _claimed(job, media)
    if found.partition("/")[0] != job.kind:
        raise _another(job, found, f"send it as {_other_kind(found)}a document")
    # The row may say it more exactly (audio/ogg; codecs=opus), not otherwise.
    row = job.mime_type or ""
    return row if row.partition(";")[0].strip().lower() == found else found


def what_it_is(data: bytes) -> str:
    """The MIME type of a file by its bytes."""
    found = str(magic.from_buffer(data[:HEAD], mime=True))
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
    """The handlers of the tracks of an MP4 or 3GP file (ISO/IEC 14496-12): `soun`, `vide` …; empty when it names none."""
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
    """What is in the boxes of one type; `left`: how many boxes may still be looked at."""
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
    """What bytes that say nothing are claimed to be."""
    by_name, _ = mimetypes.guess_type(job.file_name or media.file_name or "")
    for claim in (job.mime_type, media.mime_type, by_name):
        if (hint := _hint(claim)) and hint.partition("/")[0].lower() == job.kind:
            return hint.lower()
    raise PermanentError(
        f"kind is {job.kind!r}, but what the media is cannot be told from its bytes: name its mime_type, or send it as a "
        "document",
        error_class=ErrorClass.CONTENT,
    )


def _other_kind(found: str) -> str:
    kind = found.partition("/")[0]
    return f"{kind}, or as " if kind in {"audio", "video", "image"} else ""


def _another(job: JobSpec, found: str, fix: str) -> PermanentError:
    page = ", perhaps what the server says instead of the file" if found in _PAGES else ""
    return PermanentError(
        f"kind is {job.kind!r}, but the media is {found}{page}; {fix}", error_class=ErrorClass.CONTENT
    )
