"""Programs of Debian that tests run: ./scripts/test has put them beside Python, or they are on the PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def program(name: str, package: str) -> str:
    """The path of a program of a Debian package."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found is not None, f"needs {name}: run ./scripts/test, or put it on the PATH (Debian's package {package})"
    return found
