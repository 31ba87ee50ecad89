"""Processes of shardd on this host, for commands that find none of its sockets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PROGRAM: Final = re.compile(rb"(^|/)shardd$|^shardd\.")
"""A word of the command line of shardd: the installed program, or a module of the package."""


def is_start(pid: int | str) -> bool:
    """Whether a process is `shardd start`: after a crash a pid may belong to another process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"start" in words[1:] and any(PROGRAM.search(word) for word in words)


def is_being_started() -> bool:
    """Whether any process is `shardd start`."""
    return any(is_start(process.name) for process in Path("/proc").glob("[0-9]*"))
