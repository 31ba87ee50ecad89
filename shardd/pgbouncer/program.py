"""The program `pgbouncer`, and its version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from shardd.pgbouncer.errors import NotInstalledError, PgBouncerError

OLDEST: Final = (1, 18)
"""Of Debian 12. Older releases were not tried."""
PLACES: Final = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin")
HOW_TO_GET: Final = "install PgBouncer, which shardd then runs by itself (Debian, Ubuntu: apt-get install pgbouncer)"
_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """An executable that was asked for its version."""

    path: str
    version: str


def find_program(configured: str | None = None) -> Program:
    """`configured`: the only path to look at. Raises PgBouncerError that explains what to do."""
    path = configured or shutil.which("pgbouncer", path=os.pathsep.join((*PLACES, os.environ.get("PATH", ""))))
    if path is None:
        raise NotInstalledError(HOW_TO_GET)
    try:
        ran = subprocess.run(
            [path, "--version"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise NotInstalledError(f"there is no {path}: {HOW_TO_GET}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it does not end"
        raise PgBouncerError(f"{path} cannot be run: {reason}") from None
    found = re.search(r"PgBouncer (\d+)\.(\d+)[.\w]*", ran.stdout, re.IGNORECASE)
    if ran.returncode != 0 or found is None:
        raise PgBouncerError(f"{path} is not a PgBouncer: it does not print its version")
    if (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise PgBouncerError(f"{path} is {found[0]}, older than {oldest}: install a newer one")
    return Program(path, found[0].partition(" ")[2])
