"""Whether a new worker would load the files with which this supervisor was started.

An upgrade replaces them under a running supervisor, and for some seconds they fit neither version. A worker that starts meanwhile
may fail, which the backoff and the breaker handle; the reason is to be understood all the same. A spare worker, which has loaded
its files before, ends when any file of the installation may be another one.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Final

from shardd import ipc

REPLACED: Final = "the files of shardd were replaced since it started, as by an upgrade: restart shardd"


_Identity = tuple[int, int] | None
Installed = tuple[_Identity, ...]
"""Differs once packages were installed, upgraded or removed."""


def installed() -> Installed:
    """What is installed now: shardd's own files, and the folders of all packages, whose entries every installation changes."""
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    return _own(), *(_identity(Path(folder)) for folder in folders)


def _own() -> _Identity:
    """Of the file that both sides must agree on. pip removes all files of a package before it writes the others."""
    return _identity(Path(ipc.__file__))


def _identity(path: Path) -> _Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


_AT_START: Final = _own()


def were_replaced() -> bool:
    """Whether the supervisor's own files are other ones now, or gone."""
    return _own() != _AT_START
