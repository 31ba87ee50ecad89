"""Loads neonize once and reads WhatsApp's token dictionaries from its memory.

This package contains no copy of the dictionaries, so they are always those of the neonize under test. A Go ``[]string`` is
an array of (pointer, length) pairs: the pair of a known token leads to its table.
"""

from __future__ import annotations

import ctypes
import logging
import struct
from collections.abc import Iterator
from functools import cache

from ..client.site.noise_root import MappedSegment, library_segments
from .codec import TokenTables

SINGLE_BYTE_TOKENS = 236
DICTIONARIES = 4
DICTIONARY_SIZE = 256
_GO_STRING_SIZE = 16  # an 8-byte pointer and an 8-byte length


def load_neonize() -> None:
    """Import neonize without its change to logging: the import sets the root logger to INFO.

    Raises:
        RuntimeError: A shared library that neonize needs is missing; the text names the package to install.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import neonize  # noqa: F401, PLC0415 - loading is this function's purpose
    except ImportError as error:
        raise RuntimeError(f"neonize cannot be loaded ({error}); on Debian: apt-get install libmagic1") from error
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@cache
def read_tokens() -> TokenTables:
    """Read the single-byte and the double-byte token tables from the loaded library.

    Raises:
        RuntimeError: A table was not found; this build of neonize has another layout.
    """
    load_neonize()
    segments = list(library_segments())
    single = _read_table(segments, ["xmlstreamstart", "xmlstreamend", "s.whatsapp.net"], 1, SINGLE_BYTE_TOKENS)
    flat = _read_table(segments, ["read-self", "active", "fbns"], 0, DICTIONARIES * DICTIONARY_SIZE)
    double = [flat[start : start + DICTIONARY_SIZE] for start in range(0, len(flat), DICTIONARY_SIZE)]
    return TokenTables(single, double)


def _read_table(segments: list[MappedSegment], landmark: list[str], index: int, count: int) -> list[str]:
    """The table of ``count`` strings that contains the strings ``landmark`` from ``index`` on."""
    first = landmark[0].encode()
    for text_address in _addresses(segments, first):
        for pair_address in _addresses(segments, struct.pack("<QQ", text_address, len(first))):
            if _go_strings(pair_address, len(landmark)) == landmark:
                return _go_strings(pair_address - _GO_STRING_SIZE * index, count)
    raise RuntimeError(f"no token table with {landmark} in neonize's memory; this is known to work with neonize 0.5.2")


def _addresses(segments: list[MappedSegment], needle: bytes) -> Iterator[int]:
    for segment in segments:
        at = segment.data.find(needle)
        while at >= 0:
            yield segment.start + at
            at = segment.data.find(needle, at + 1)


def _go_strings(address: int, count: int) -> list[str]:
    table = ctypes.string_at(address, _GO_STRING_SIZE * count)
    return [
        ctypes.string_at(pointer, length).decode() if length else ""
        for pointer, length in struct.iter_unpack("<QQ", table)
    ]
