"""What is known of an image: the words between `previews` and its process."""

from __future__ import annotations

import msgspec


class Picture(msgspec.Struct, frozen=True):
    """`width`, `height`: in pixels, as it is shown (0: not known); `preview`: a small JPEG; `damaged`: cannot be decoded."""

    width: int = 0
    height: int = 0
    preview: bytes | None = None
    damaged: bool = False
