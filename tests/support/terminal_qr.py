"""Reads QR codes from terminal output as a camera would: draws the glyphs like a font, then scans the picture."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import zxingcpp

CELL = (10, 21)
"""Pixels of a character cell; fonts are 1.8 to 2.2 times as high as wide."""
_PAINTED = {
    "SPACE": "",
    "FULL BLOCK": "123456",
    "LEFT HALF BLOCK": "135",
    "RIGHT HALF BLOCK": "246",
}
"""The sixths of a cell that a glyph fills, numbered as in Unicode: row by row from the top left."""


def scan_lines(lines: Sequence[str]) -> list[str]:
    """The texts of the QR codes in these lines, drawn dark on light."""
    width, height = CELL
    columns = max(map(len, lines))
    margin = 2 * height
    stride = columns * width + 2 * margin
    pixels = bytearray(b"\xff" * (stride * margin))
    for line in lines:
        glyphs = line.ljust(columns)
        for y in range(height):
            pixels += b"\xff" * margin + b"".join(_row(glyph, y) for glyph in glyphs) + b"\xff" * margin
    pixels += b"\xff" * (stride * margin)
    picture = memoryview(pixels).cast("B", (len(pixels) // stride, stride))
    return [code.text for code in zxingcpp.read_barcodes(picture)]


@cache
def _row(glyph: str, y: int) -> bytes:
    """One row of pixels of a glyph; letters are blank."""
    width, height = CELL
    name = unicodedata.name(glyph, "")
    if name in {"UPPER HALF BLOCK", "LOWER HALF BLOCK"}:
        dark = [(name == "UPPER HALF BLOCK") == (2 * y < height)] * width
    else:
        sextant = re.fullmatch(r"BLOCK SEXTANT-(\d+)", name)
        sixths = sextant[1] if sextant else _PAINTED.get(name, "")
        dark = [str(2 * (3 * y // height) + 2 * x // width + 1) in sixths for x in range(width)]
    return bytes(0 if one else 255 for one in dark)
