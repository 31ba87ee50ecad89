"""A folder of the locked wheels for another Python, because a booted machine has no network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement


def download_wheels(locks: list[Path], python: str, folder: Path) -> None:
    """Download what the lock files name for this version of Python, such as 3.11.2, unless it is there already.

    pip would choose by the version of the Python that runs it (soupsieve is locked twice), so the choice is made here.
    """
    wanted = "".join(_pinned_for(locks, python))
    stamp = folder / "wanted.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    chosen = folder / "choose.txt"
    chosen.write_text(wanted)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--python-version", python]
    command += ["--dest", str(folder), "--requirement", str(chosen)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the wheels for Python {python} cannot be downloaded:\n{done.stderr[-2000:]}")
    chosen.rename(stamp)


def _pinned_for(locks: list[Path], python: str) -> Iterator[str]:
    environment = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    seen: set[str] = set()
    for lock in locks:
        for entry in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            if not entry.strip() or entry.startswith("#"):
                continue
            text, *hashes = entry.split(" --hash=")
            requirement = Requirement(text.strip())
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            pinned = f"{requirement.name}{requirement.specifier}"
            if pinned not in seen:
                seen.add(pinned)
                yield pinned + "".join(f" --hash={value.strip()}" for value in hashes) + "\n"
