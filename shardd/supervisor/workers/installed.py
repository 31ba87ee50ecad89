"""Whether a new worker would load the files with which this supervisor was started.

An upgrade replaces them under a running supervisor, and for some seconds they fit neither version. A worker that starts meanwhile
may fail, which the backoff and the breaker handle; the reason is to be understood all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shardd import ipc

REPLACED: Final = "the files of shardd were replaced since it started, as by an upgrade: restart shardd"


def _identity() -> tuple[int, int] | None:
    """Of the file that both sides must agree on. pip removes all files of a package before it writes the others."""
    try:
        found = Path(ipc.__file__).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


_AT_START: Final = _identity()


def were_replaced() -> bool:
    """Whether the supervisor's own files are other ones now, or gone."""
    return _identity() != _AT_START
