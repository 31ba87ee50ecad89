"""Exits with 0 if this machine has a PostgreSQL that the demonstration can run, otherwise with 1."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from shardd.embedded.binaries import find_binaries
from shardd.embedded.home import prepare_home
from shardd.errors import DatabaseError

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    folder.chmod(0o711)  # root checks as the account that would run the server
    try:
        find_binaries(prepare_home(folder, spare=folder / "spare"))
    except DatabaseError:
        sys.exit(1)
