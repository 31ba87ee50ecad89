"""What a dead worker's process said at the end: the panic of the Go library, a stack, an error of the interpreter.

A worker's stderr leads to a file in the state folder, one for each shard, begun anew with each worker. Its log goes to
the supervisor's stderr by a descriptor of its own, so the library's chatter does not get between the events.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

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


def words_path(state_dir: Path, shard: int) -> Path:
    """Where a shard's workers say them."""
    return state_dir / "stderr" / f"shard-{shard:03d}.txt"


def open_words(path: Path) -> int:
    """A new file's descriptor, to append to. Raises OSError."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)


def last_words(path: Path) -> str | None:
    """The line that tells most: the first that names a fatal error, else the last one; None when nothing was said."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_CHATTER)]
    telling = [line for line in lines if line.startswith(_TELLING)]
    found = telling[:1] or lines[-1:]
    return found[0][:300] if found else None
