"""Duration of audio and video, size and preview of video, waveform of voice messages; read in a child process.

That takes the package `av` of the extra `media`. Without it, and when the analysis fails, a message is sent without them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from shardd.logs import get_logger
from shardd.transports.whatsapp.media.limited_process import MEMORY, PATIENCE, SECONDS, LimitedProcess
from shardd.transports.whatsapp.media.recording import Recording, is_installed

log = get_logger(__name__)

MAX_RECORDING: Final = 64 * 1024 * 1024
"""Bytes of a file."""
WITHOUT: Final = "audio or video sent without duration and preview"
FORMATS: Final = MappingProxyType(
    {
        "audio/3gpp": "mov",
        "audio/3gpp2": "mov",
        "audio/aac": "aac",
        "audio/amr": "amr",
        "audio/amr-wb": "amr",
        "audio/flac": "flac",
        "audio/mp4": "mov",
        "audio/mpeg": "mp3",
        "audio/ogg": "ogg",
        "audio/wav": "wav",
        "audio/x-wav": "wav",
        "video/3gpp": "mov",
        "video/3gpp2": "mov",
        "video/mp2t": "mpegts",
        "video/mp4": "mov",
        "video/mpeg": "mpeg",
        "video/ogg": "ogg",
        "video/quicktime": "mov",
        "video/webm": "matroska",
        "video/x-matroska": "matroska",
        "video/x-msvideo": "avi",
    }
)
"""FFmpeg's names of the formats that are read, by MIME type."""


class Recordings(LimitedProcess[Recording]):
    """Reads the audio and video of one worker."""

    def __init__(self, *, memory: int = MEMORY, seconds: float = SECONDS, patience: float = PATIENCE) -> None:
        super().__init__(
            "shardd.transports.whatsapp.media.recording_process",
            Recording,
            without=WITHOUT,
            max_bytes=MAX_RECORDING,
            memory=memory,
            seconds=seconds,
            patience=patience,
        )

    def complete(self, answer: Recording) -> bool:
        """Whether everything was found."""
        return not answer.error

    async def read(self, data: bytes, kind: str, mime_type: str) -> Recording | None:
        """What is found in a file that is sent as `kind`; None when nothing can be."""
        file_format = FORMATS.get(mime_type.partition(";")[0].strip().lower())
        if not is_installed():
            return None
        if file_format is None:
            log.info(WITHOUT, action="preview", error=f"{mime_type} is not read")
            return None
        return await self.analyse(data, f"{kind} {file_format}")
