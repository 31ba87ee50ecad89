"""What the preview process reports about an image."""

from __future__ import annotations

from typing import Final

import msgspec

PREVIEW: Final = 72
"""Pixels of a preview's longer side."""


class Picture(msgspec.Struct, frozen=True):
    """`width`, `height`: in pixels, as shown (0: unknown); `preview`: a small JPEG; `damaged`: cannot be decoded."""

    width: int = 0
    height: int = 0
    preview: bytes | None = None
    damaged: bool = False
