"""QR codes as lines of a terminal.

A terminal cell is about twice as high as wide, so two modules in a cell, one above the other (half blocks), keep them square.
What WhatsApp shows has 61 modules and more a side, which is higher than a window of 24 lines; there a cell holds two by three
modules (sextants of Unicode 13). They are a third higher than wide then, which scanners take for a slanted view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import segno

QUIET_ZONES: Final = (2, 1)
"""Light modules around the code, the first choice first. The standard says 4; cameras are content with less."""

_HALF_BLOCKS: Final = " ▀▄█"
_SEXTANTS_BEGIN: Final = 0x1FB00
_SEXTANTS_ELSEWHERE: Final = {0: " ", 0b010101: "▌", 0b101010: "▐", 0b111111: "█"}
"""Those that Unicode had before: the row of sextants leaves them out."""


def draw_qr(text: str, *, columns: int, lines: int, sextants: bool) -> list[str] | None:
    """The code of a text as lines of equal length, as large as fits; None when the space is too small.

    To be shown dark on light: a space is light. `sextants`: whether the terminal can show these.
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


def _half_blocks(modules: list[list[int]]) -> list[str]:
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


def _padded(modules: list[list[int]], width: int, height: int) -> list[list[int]]:
    """Filled up with light modules to whole cells."""
    columns = -(-len(modules[0]) // width) * width
    rows = [row + [0] * (columns - len(row)) for row in modules]
    return rows + [[0] * columns] * (-len(rows) % height)
