"""Small audio and video files, made with PyAV, which an installation without the extra `media` does not have."""

from __future__ import annotations

import io
import math
import multiprocessing
import tempfile
from array import array
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.media_files import upright

RATE = 48_000
FRAME = 960
"""Samples of a frame: 20 ms."""


def _av() -> Any:
    import av  # noqa: PLC0415 - tests that need no such files run without it

    return av


def _full(_: float) -> float:
    return 0.5


@lru_cache
def _tone(loudness: float) -> bytes:
    """A frame of a tone of 400 Hz, of which 8 periods are a frame."""
    angle = 2 * math.pi * 400 / RATE
    return array("h", (int(32767 * loudness * math.sin(angle * n)) for n in range(FRAME))).tobytes()


def sound(
    seconds: float, form: str = "ogg", codec: str = "libopus", *, loudness: Callable[[float], float] = _full
) -> bytes:
    """A tone; `loudness` between 0 and 1, by second."""
    av = _av()
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        for at in range(0, int(seconds * RATE), FRAME):
            frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME)
            frame.planes[0].update(_tone(loudness(at / RATE)))
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def film(
    seconds: float,
    form: str = "mp4",
    codec: str = "libx264",
    *,
    image: Image.Image | None = None,
    rate: int = 10,
    header_first: bool = False,
    **options: str,
) -> bytes:
    """A video that shows one image, by default `upright`. `options`: of the encoder.

    `header_first`: of an MP4 file, as servers want it, and not at its end, as cameras write it.
    """
    av = _av()
    image = image or upright()
    how = {"movflags": "faststart"} if header_first else {}
    with (
        tempfile.NamedTemporaryFile() as out,  # FFmpeg reads it again to move the header
        av.open(out.name, "w", format=form, options=how) as container,
    ):
        stream = container.add_stream(codec, rate=rate, options={"x265-params": "log-level=none", **options})
        stream.width, stream.height, stream.pix_fmt = *image.size, "yuv420p"
        for _ in range(round(seconds * rate)):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
        container.close()
        return Path(out.name).read_bytes()


def film_apart(seconds: float, form: str, codec: str) -> bytes:
    """`film`, by a process of its own.

    SVT-AV1, which is the AV1 encoder of PyAV's wheel, gives its caller real-time priority if it runs as root (EbThreads.c:
    SCHED_FIFO, 99). Every process that pytest starts later would inherit that.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(film, seconds, form, codec).result()


def patched(data: bytes, box: bytes, at: int, value: bytes) -> bytes:
    """An MP4 file in which each box of a type has other bytes, `at` bytes behind its type."""
    changed, start = bytearray(data), data.find(box)
    assert start >= 0
    while start >= 0:
        changed[start + 4 + at : start + 4 + at + len(value)] = value
        start = data.find(box, start + 4)
    return bytes(changed)


def turned(data: bytes) -> bytes:
    """An MP4 file whose frames are to be turned clockwise by 90 degrees, as a phone held upright stores them.

    The matrix of a track (ISO/IEC 14496-12, 8.3.2), in fixed point.
    """
    one = 1 << 16
    matrix = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    return patched(data, b"tkhd", 40, b"".join(number.to_bytes(4, "big", signed=True) for number in matrix))
