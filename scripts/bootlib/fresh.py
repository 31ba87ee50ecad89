"""A fresh system with a clone and the wheels that it needs, booted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bootlib.machine import CLONE, Machine, booted, why_not
from bootlib.root import ImpossibleError, cache_folder, make_archive, python_version, unpacked
from bootlib.steps import Steps
from bootlib.wheels import download_wheels


@dataclass(frozen=True)
class Fresh:
    """The machine, its root as this system sees it, and its version of Python."""

    machine: Machine
    root: Path
    python: str


@contextmanager
def fresh_machine(
    release: str, packages: Sequence[str], clone: Path, locks: list[Path], steps: Steps, *, purpose: str
) -> Iterator[Fresh]:
    """Boot it for the block; `packages`: at hand for apt, `locks`: of the wheels. Raises ImpossibleError, CommandError."""
    with steps.step("a root by mmdebstrap"):
        archive = make_archive(release, packages, cache_folder())
    with unpacked(archive) as root:
        if (reason := why_not(root)) is not None:
            raise ImpossibleError(reason)
        python = python_version(root)
        wheels = cache_folder() / f"wheels-{purpose}-{python}"
        with steps.step(f"locked wheels for Python {python}"):
            download_wheels(locks, python, wheels)
        put_clone(clone, root)
        with booted(root, wheels, f"{purpose}-{release}-{os.getpid()}") as machine:
            yield Fresh(machine, root, python)


def put_clone(clone: Path, root: Path) -> None:
    """Copy what git knows of the clone, as it is now, into the root."""
    target = root / CLONE.lstrip("/")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=clone, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, names):
        source = clone / name.decode()
        if source.exists():
            copy = target / name.decode()
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
