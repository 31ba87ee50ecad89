"""The first moments of the installed command."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import os, signal, sys
before = set(sys.modules)
import shardd.cli.entry
print(*sorted(sys.modules.keys() - before))
"""


def test_a_signal_is_kept_before_anything_else_is_loaded() -> None:
    """Each module that is loaded before prolongs the time in which SIGHUP ends a start; `typing` alone would double it."""
    ran = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["__future__", "shardd", "shardd.cli", "shardd.cli.early", "shardd.cli.entry"]
