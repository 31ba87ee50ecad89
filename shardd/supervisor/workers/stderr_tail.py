"""What a dead worker's process said at the end: the panic of the Go library, a stack, an error of the interpreter.

A worker's stderr leads to a file in the state folder, one for each shard, begun anew with each worker. Its log goes to
the supervisor's stderr by a descriptor of its own, so the library's chatter does not get between the events.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from shardd.errors import UnsafeFileError
from shardd.state_files import open_file

TAIL: Final = 64 * 1024
"""Bytes at the end of the file that are looked at; a panic prints every goroutine after its first line."""
_TELLING: Final = (
    "fatal error:",
    "panic:",
    "runtime: out of memory",
    "Fatal Python error:",
    "MemoryError",
    "ImportError",
)
_CHATTER: Final = ("Press Ctrl+C to exit",)


def open_words(state_dir: Path, shard: int) -> int:
    """A descriptor of a shard's file, emptied, to append to. Raises OSError, UnsafeFileError."""
    return open_file(state_dir, _name(shard), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


def stderr_tail(state_dir: Path, shard: int) -> str | None:
    """The line that tells most: the first that names a fatal error, else the last one; None when nothing was said."""
    try:
        fd = open_file(state_dir, _name(shard), os.O_RDONLY)
        try:
            text = os.pread(fd, TAIL, max(0, os.fstat(fd).st_size - TAIL)).decode(errors="replace")
        finally:
            os.close(fd)
    except (OSError, UnsafeFileError):
        return None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_CHATTER)]
    telling = [line for line in lines if line.startswith(_TELLING)]
    found = telling[:1] or lines[-1:]
    return found[0][:300] if found else None


def _name(shard: int) -> str:
    return f"stderr/shard-{shard:03d}.txt"
