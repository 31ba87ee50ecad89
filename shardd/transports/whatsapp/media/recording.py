"""What the recording process reports about audio or video."""

from __future__ import annotations

from typing import Final

import msgspec

BARS: Final = 64
"""Values of a waveform, each between 0 and 100, as WhatsApp's own apps send it (tulir/whatsmeow, issue 121)."""


class Recording(msgspec.Struct, frozen=True):
    """`seconds`, `width`, `height`: 0 if unknown; the size is in pixels, as shown. `preview`: a small JPEG.

    `waveform`: `BARS` bytes. `error`: what kept the process from finding all of it.
    """

    seconds: int = 0
    width: int = 0
    height: int = 0
    preview: bytes | None = None
    waveform: bytes | None = None
    error: str = ""
