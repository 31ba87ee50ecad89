"""What the recording process reports about audio or video, and whether there can be one."""

from __future__ import annotations

import importlib.util
from typing import Final

import msgspec

from shardd.extras import how_to_install

BARS: Final = 64
"""Values of a waveform, each between 0 and 100, as WhatsApp's own apps send it (tulir/whatsmeow, issue 121)."""


NOT_INSTALLED: Final = (
    "WhatsApp devices send voice messages, audio and video without duration, waveform and preview, because the package av is not "
    f"installed: {how_to_install('media')}"
)


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


def is_installed() -> bool:
    """Whether the package that reads audio and video is there; it may be installed while shardd runs."""
    return importlib.util.find_spec("av") is not None
