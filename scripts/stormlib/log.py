"""The log of a storm: one JSON object per line, in the order in which things happened."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Log:
    """Appends to a file; each line is complete before the next step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, **details: Any) -> float:
        """Add a line; returns its time (Unix seconds)."""
        now = time.time()
        os.write(self._fd, json.dumps({"at": round(now, 6), "what": what, **details}, default=str).encode() + b"\n")
        return now

    def close(self) -> None:
        """No line follows."""
        os.close(self._fd)
