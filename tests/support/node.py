"""Programs for Node, and the libraries that they use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def install_by_npm(folder: Path, *arguments: str, timeout: float) -> None:
    """Install into a folder, as `npm install` with these arguments. Skips the test where that is not possible."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no Node with npm")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=timeout)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install the libraries: {error}")
