"""Size and preview of images, made in a child process."""

from __future__ import annotations

from typing import Final

from shardd.transports.whatsapp.media.limited_process import MEMORY, PATIENCE, SECONDS, LimitedProcess
from shardd.transports.whatsapp.media.picture import Picture

MAX_IMAGE: Final = 32 * 1024 * 1024
"""Bytes of an image."""


class Previews(LimitedProcess[Picture]):
    """Makes the previews of one worker."""

    def __init__(
        self,
        *,
        max_bytes: int = MAX_IMAGE,
        memory: int = MEMORY,
        seconds: float = SECONDS,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(
            "shardd.transports.whatsapp.media.preview_process",
            Picture,
            without="image sent without preview",
            max_bytes=max_bytes,
            memory=memory,
            seconds=seconds,
            patience=patience,
        )

    def complete(self, answer: Picture) -> bool:
        """Whether the image was decoded."""
        return answer.preview is not None

    async def make(self, data: bytes) -> Picture | None:
        """Size and preview of an image; None when that would take too long or too much memory."""
        return await self.analyse(data)
