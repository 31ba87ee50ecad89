"""What a message says about the file that it carries, found out before anything is opened for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.media.fetcher import Media
from shardd.transports.whatsapp.media.file_types import sent_as
from shardd.transports.whatsapp.media.previews import Previews

MAX_PIXELS: Final = 100_000_000
"""An image beyond this is refused: no phone shows it."""


@dataclass(frozen=True, slots=True)
class Look:
    """`preview`: a small JPEG of an image; `size`: its width and height in pixels, as it is shown."""

    mime_type: str
    preview: bytes | None = None
    size: tuple[int, int] | None = None


async def look_at(job: JobSpec, media: Media, previews: Previews) -> Look:
    """Look at what is to be sent. Raises PermanentError when it is not what the job's kind says."""
    mime_type = await asyncio.to_thread(sent_as, job, media)
    if job.kind != "image":
        return Look(mime_type)
    picture = await previews.look(media.data)
    if picture is None:
        return Look(mime_type)
    if picture.damaged:
        raise PermanentError(
            "the media is not an image that can be read: send JPEG or PNG, or send it as a document",
            error_class=ErrorClass.CONTENT,
        )
    if picture.width * picture.height > MAX_PIXELS:
        raise PermanentError(
            f"the image has {picture.width} by {picture.height} pixels, which is too much: send it as a document",
            error_class=ErrorClass.CONTENT,
        )
    return Look(mime_type, picture.preview, (picture.width, picture.height) if picture.width else None)
