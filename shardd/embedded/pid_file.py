"""What PostgreSQL writes about itself into `postmaster.pid`, and whether it is still true."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shardd.state_files import read_others_file

_MOST: Final = 8192
"""Bytes; PostgreSQL itself reads no more than BLCKSZ of it."""


def pid_in(pid_file: Path) -> int | None:
    """Process id of the server that wrote the file, if there is a file. Raises UnsafeFileError, OSError."""
    lines = _lines(pid_file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def is_ready(pid_file: Path, pid: int) -> bool:
    """Whether the server with this process id says that it accepts connections.

    It keeps its status in the eighth line (PostgreSQL's miscadmin.h: LOCK_FILE_LINE_PM_STATUS).
    """
    lines = _lines(pid_file)
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def works_in(pid: int, folder: Path) -> bool:
    """Whether a process works in this folder; a PostgreSQL server does in its data folder."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
    except OSError:
        return False


def _lines(pid_file: Path) -> list[str]:
    content = read_others_file(pid_file, _MOST)
    return [] if content is None else content.decode(errors="replace").splitlines()
