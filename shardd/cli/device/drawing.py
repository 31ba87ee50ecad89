"""QR codes and large letters as lines of a terminal.

A terminal cell is about twice as high as wide, so two modules in a cell, one above the other (half blocks), keep them square.
WhatsApp's codes have 61 modules and more a side, which is higher than a window of 24 lines; there a cell holds two by three
modules (sextants of Unicode 13), a third higher than wide, which scanners take for a slanted view. segno's own terminal output
has half blocks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import segno

QUIET_ZONES: Final = (2, 1)
"""Light modules around the code, by preference. The standard says 4; cameras accept less."""

_HALF_BLOCKS: Final = " ▀▄█"
"""By the upper half plus twice the lower half."""
_SEXTANTS_BEGIN: Final = 0x1FB00
_SEXTANTS_ELSEWHERE: Final = {0: " ", 0b010101: "▌", 0b101010: "▐", 0b111111: "█"}
"""Those that Unicode already had elsewhere; the block of sextants omits them."""
_GAP: Final = "  "
# Seven rows of five dots.
_GLYPHS: Final = {
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ..##. .#... #.... #####",
    "3": "####. ....# ....# .###. ....# ....# ####.",
    "4": "#...# #...# #...# ##### ....# ....# ....#",
    "5": "##### #.... #.... ####. ....# ....# ####.",
    "6": ".###. #.... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ...#. ..#.. ..#.. ..#..",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ....# .###.",
    "A": "..#.. .#.#. #...# #...# ##### #...# #...#",
    "B": "####. #...# #...# ####. #...# #...# ####.",
    "C": ".#### #.... #.... #.... #.... #.... .####",
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "E": "##### #.... #.... ####. #.... #.... #####",
    "F": "##### #.... #.... ####. #.... #.... #....",
    "G": ".#### #.... #.... #..## #...# #...# .####",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "J": "..### ...#. ...#. ...#. ...#. #..#. .##..",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "M": "#...# ##.## #.#.# #.#.# #...# #...# #...#",
    "N": "#...# ##..# ##..# #.#.# #..## #..## #...#",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "Q": ".###. #...# #...# #...# #.#.# #..#. .##.#",
    "R": "####. #...# #...# ####. #.#.. #..#. #...#",
    "S": ".#### #.... #.... .###. ....# ....# ####.",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "V": "#...# #...# #...# #...# .#.#. .#.#. ..#..",
    "W": "#...# #...# #...# #.#.# #.#.# ##.## #...#",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "Y": "#...# #...# .#.#. ..#.. ..#.. ..#.. ..#..",
    "Z": "##### ....# ...#. ..#.. .#... #.... #####",
    "-": "..... ..... ..... .###. ..... ..... .....",
}


def draw_qr(text: str, *, columns: int, lines: int, sextants: bool) -> list[str] | None:
    """The QR code of a text as lines of equal length, as large as fits; None when nothing fits.

    To be shown dark on light: a space is light. `sextants`: whether the terminal has these glyphs.
    """
    matrix = segno.make(text, error="l", boost_error=False, micro=False).matrix
    for draw in (_half_blocks, _sextants) if sextants else (_half_blocks,):
        for quiet in QUIET_ZONES:
            drawn = draw(_framed(matrix, quiet))
            if len(drawn) <= lines and len(drawn[0]) <= columns:
                return drawn
    return None


def _framed(matrix: Sequence[Sequence[int]], quiet: int) -> list[list[int]]:
    width = len(matrix) + 2 * quiet
    side = [0] * quiet
    empty = [[0] * width] * quiet
    return [*empty, *([*side, *map(bool, row), *side] for row in matrix), *empty]


def _half_blocks(modules: Sequence[Sequence[int]]) -> list[str]:
    rows = _padded(modules, 1, 2)
    return [
        "".join(_HALF_BLOCKS[top + 2 * bottom] for top, bottom in zip(*rows[y : y + 2], strict=True))
        for y in range(0, len(rows), 2)
    ]


def _sextants(modules: list[list[int]]) -> list[str]:
    rows = _padded(modules, 2, 3)
    return [
        "".join(_sextant([bit for row in rows[y : y + 3] for bit in row[x : x + 2]]) for x in range(0, len(rows[0]), 2))
        for y in range(0, len(rows), 3)
    ]


def _sextant(bits: list[int]) -> str:
    value = sum(bit << place for place, bit in enumerate(bits))
    if value in _SEXTANTS_ELSEWHERE:
        return _SEXTANTS_ELSEWHERE[value]
    left_out = sum(value > other for other in _SEXTANTS_ELSEWHERE)
    return chr(_SEXTANTS_BEGIN + value - left_out)


def _padded(modules: Sequence[Sequence[int]], width: int, height: int) -> list[list[int]]:
    """With light modules added up to whole cells."""
    columns = -(-len(modules[0]) // width) * width
    rows = [[*row, *([0] * (columns - len(row)))] for row in modules]
    return rows + [[0] * columns] * (-len(rows) % height)


def draw_letters(text: str) -> list[str] | None:
    """The text in letters four lines high, in lines of equal length; None when a letter has no large form.

    The alphabet is that of WhatsApp's pairing codes, which omits 0, I, O and U. Too little for a dependency on pyfiglet with its
    megabyte of fonts.
    """
    if not all(letter in _GLYPHS for letter in text):
        return None
    glyphs = [[*_GLYPHS[letter].split(), "....."] for letter in text]
    drawn = [_half_blocks([[dot == "#" for dot in row] for row in glyph]) for glyph in glyphs]
    return [_GAP.join(parts) for parts in zip(*drawn, strict=True)]
