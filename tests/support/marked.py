"""Processes that come of one program, found by a variable that they all inherit."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


class Mark:
    """A variable for the environment of a program."""

    def __init__(self) -> None:
        self._name, self._value = "PROGRAM_UNDER_TEST", str(uuid.uuid4())

    @property
    def environ(self) -> dict[str, str]:
        """Ours, with the mark."""
        return {**os.environ, self._name: self._value}

    def processes(self, path: Path | None = None) -> list[str]:
        """Command lines of everything that has the mark, or names `path`: PostgreSQL's environment is its own."""
        mark = f"{self._name}={self._value}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
                if (path is not None and str(path).encode() in command) or mark in (entry / "environ").read_bytes():
                    found.append(command.replace(b"\0", b" ").decode())
            except OSError:  # ended meanwhile, or of somebody else
                continue
        return found
