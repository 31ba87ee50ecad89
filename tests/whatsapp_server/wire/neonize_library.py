"""Loads neonize into this process once, and reads WhatsApp's token dictionaries out of it.

No copy of the dictionaries is kept in this project: a Go ``[]string`` is a run of (pointer, length) pairs, so finding
the pair of one known token finds its table. They are always those of the neonize under test.
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
    """Import neonize; keep the process's logging as it was (the import would set the root logger to INFO).

    Raises:
        RuntimeError: A shared library that neonize needs is missing; names the package to install.
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
        RuntimeError: A table was not found: a build that lays it out otherwise.
    """
    load_neonize()
    segments = list(library_segments())
    single = _read_table(segments, ["xmlstreamstart", "xmlstreamend", "s.whatsapp.net"], 1, SINGLE_BYTE_TOKENS)
    flat = _read_table(segments, ["read-self", "active", "fbns"], 0, DICTIONARIES * DICTIONARY_SIZE)
    double = [flat[start : start + DICTIONARY_SIZE] for start in range(0, len(flat), DICTIONARY_SIZE)]
    return TokenTables(single, double)


def _read_table(segments: list[MappedSegment], landmark: list[str], index: int, count: int) -> list[str]:
    """The table of ``count`` strings in which the run ``landmark`` begins at ``index``."""
    first = landmark[0].encode()
    for text_address in _addresses(segments, first):
        for pair_address in _addresses(segments, struct.pack("<QQ", text_address, len(first))):
            if _go_strings(pair_address, len(landmark)) == landmark:
                return _go_strings(pair_address - _GO_STRING_SIZE * index, count)
    raise RuntimeError(f"no token table with {landmark} in neonize's memory: another build than 0.5.2?")


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
