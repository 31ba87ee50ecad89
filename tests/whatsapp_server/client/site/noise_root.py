"""Replace WhatsApp's Noise root key in the neonize library that this process has loaded.

whatsmeow accepts a server only if its certificate is signed by a 32-byte public key that is compiled into the library. No
option changes that key, so a test overwrites it in the memory of its own process. This file uses the standard library
only: it must work in any child process that has this folder on PYTHONPATH.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BUILT_IN_ROOT = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")
ROOT_LENGTH = 32


class MappedSegment(NamedTuple):
    """One readable memory mapping of the library: its start address, whether it is writable, and a copy of it."""

    start: int
    writable: bool
    data: bytes


def library_segments() -> Iterator[MappedSegment]:
    """Yield the readable mappings of neonize's shared library in this process; none if it is not loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _offset, _device, _inode, *path = line.split(maxsplit=5)
        if not path or not permissions.startswith("r"):
            continue
        file_name = path[0].rsplit("/", 1)[-1]
        if file_name.startswith("neonize") and file_name.endswith(".so"):
            start, end = (int(address, 16) for address in span.split("-"))
            yield MappedSegment(start, permissions[1] == "w", ctypes.string_at(start, end - start))


def plant_noise_root(public_key: bytes) -> None:
    """Make the loaded library trust ``public_key`` (32 bytes) as WhatsApp's root. Calling it again changes nothing.

    Raises:
        ValueError: The key is not 32 bytes long.
        RuntimeError: The library is not loaded, or its writable memory does not contain the built-in root exactly once.
    """
    if len(public_key) != ROOT_LENGTH:
        raise ValueError(f"a Noise root key has {ROOT_LENGTH} bytes, got {len(public_key)}")
    segments = [segment for segment in library_segments() if segment.writable]
    if not segments:
        raise RuntimeError("neonize is not loaded in this process; import it first")
    places = [segment.start + offset for segment in segments for offset in _occurrences(segment.data, BUILT_IN_ROOT)]
    if not places and any(public_key in segment.data for segment in segments):
        return
    if len(places) != 1:
        raise RuntimeError(
            f"found the Noise root {len(places)} times in neonize's memory, not once; this is known to work with neonize 0.5.2"
        )
    ctypes.memmove(places[0], public_key, ROOT_LENGTH)


def _occurrences(data: bytes, needle: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)
