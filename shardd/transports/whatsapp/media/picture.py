"""What the preview process reports about an image."""

from __future__ import annotations

import msgspec


class Picture(msgspec.Struct, frozen=True):
    """`width`, `height`: in pixels, as shown (0: unknown); `preview`: a small JPEG; `damaged`: cannot be decoded."""

    width: int = 0
    height: int = 0
    preview: bytes | None = None
    damaged: bool = False
