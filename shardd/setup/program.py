"""The program that the unit starts: the `shardd` of the virtual environment that runs this command.

The service runs as a user of its own, without home folders (ProtectHome=) and with an empty /tmp (PrivateTmp=). A program that it
cannot reach would fail with status=203/EXEC, or with an import error.
"""

from __future__ import annotations

import re
import stat
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import shardd
from shardd.errors import UsageError

_HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108  not for files of ours
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._+@-]+")
"""Means the same in a unit, where spaces, quotes, `$` and `%` do not."""


def find_program() -> Path:
    """The absolute path. Raises UsageError if there is none, or one that a unit cannot name."""
    program = Path(sysconfig.get_path("scripts")) / "shardd"
    if not program.is_file():
        raise UsageError(
            f"{program}: there is no such program, though this is the Python that runs this command: install shardd into a "
            "virtual environment, such as /opt/shardd"
        )
    if not _PLAIN.fullmatch(str(program)):
        raise UsageError(
            f"{program}: a unit cannot name this path: use one of A-Z a-z 0-9 . _ + @ - only, such as /opt/shardd"
        )
    return program


def parts(program: Path) -> list[Path]:
    """What must be reachable for the service: the program, the interpreter, the package."""
    return [program, Path(sys.executable), Path(sys.executable).resolve(), Path(shardd.__file__).resolve()]


def obstacles(needed: list[Path], prefix: Path) -> Iterator[str]:
    """Why the service's user cannot run what needs these files, and the fix. `prefix`: of the virtual environment."""
    blamed: set[Path] = set()
    for file in needed:
        place = file.parent.resolve() / file.name
        hidden = next((folder for folder in _HIDDEN if place.is_relative_to(folder)), None)
        if hidden is not None:
            if hidden not in blamed:
                yield (
                    f"{place}: the service does not see {hidden}: install shardd into /opt/shardd, with a Python that is "
                    "elsewhere"
                )
            blamed.add(hidden)
            continue
        private = next(filter(_is_private, (*reversed(place.parents), place)), None)
        if private is not None and private not in blamed:
            inside = prefix.resolve() if private.is_relative_to(prefix.resolve()) else private
            yield f"{private}: the service's user may not use it, but needs {place}: chmod --recursive go+rX {inside}"
            blamed.add(private)


def _is_private(path: Path) -> bool:
    mode = path.stat().st_mode
    return not mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH)
