"""Small media files for tests, some of them built by hand, and the peak memory of a process."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

RED, BLUE = (200, 30, 30), (30, 30, 200)
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>gone</body></html>"


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def plain_image(width: int, height: int, kind: str = "PNG", mode: str = "RGB", **how: Any) -> bytes:
    return encoded(Image.new(mode, (width, height), RED if mode in {"RGB", "RGBA"} else 1), kind, **how)


def upright(width: int = 240, height: int = 400) -> Image.Image:
    """An image whose upper half is red and whose lower half is blue."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width, height // 2))
    return image


# What a camera stores, such that the orientation turns it back into what was seen (TIFF 6.0, Orientation).
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def photo(orientation: int, kind: str = "JPEG", image: Image.Image | None = None) -> bytes:
    """`upright` as stored by a camera that was held in another orientation."""
    image = image or upright()
    turn = _STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image if turn is None else image.transpose(turn), kind, exif=exif)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def scan_bomb(side: int = 4000, scans: int = 10_000) -> bytes:
    """A progressive JPEG that repeats its last scan: 3 ms of decoding for each of them, in 53 bytes."""
    image = plain_image(side, side, "JPEG", progressive=True)
    last = image[image.rfind(b"\xff\xc4", 0, image.rfind(b"\xff\xda")) : -2]
    return image[:-2] + last * scans + b"\xff\xd9"


def ogg(first_packet: bytes, *, flags: int = 2) -> bytes:
    """The first page of an Ogg stream, and some more bytes."""
    page = b"OggS\0" + bytes([flags]) + bytes(8) + b"\1\0\0\0" + bytes(8) + bytes([1, len(first_packet)])
    return page + first_packet + bytes(500)


OPUS = ogg(b"OpusHead\1\1" + struct.pack("<HIhB", 312, 48000, 0, 0))
VORBIS = ogg(b"\1vorbis" + bytes(23))
MP3 = b"\xff\xfb\x90\x64" + bytes(413) + b"\xff\xfb\x90\x64" + bytes(413)
WEBM = b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm" + bytes(100)


def box(kind: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I", len(inner) + 8) + kind + inner


def mp4(brand: bytes, *handlers: bytes) -> bytes:
    """An MP4 or 3GP file with a track for each handler (`soun`, `vide`)."""
    tracks = [
        box(
            b"trak",
            box(b"tkhd", bytes(84)),
            box(b"mdia", box(b"mdhd", bytes(24)), box(b"hdlr", bytes(8), h, bytes(13))),
        )
        for h in handlers
    ]
    return (
        box(b"ftyp", brand, bytes(4), brand)
        + box(b"mdat", bytes(5000))
        + box(b"moov", box(b"mvhd", bytes(100)), *tracks)
    )


def peak(pid: int) -> int:
    """The peak resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
