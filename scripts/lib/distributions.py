"""Builds the sdist and the wheel of a clone's last commit: see ./scripts/build --help.

    python scripts/lib/distributions.py CLONE FOLDER

From the commit, so that no other file of the clone gets in; the wheel from the unpacked sdist, so that the sdist is known to be
complete. SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch) is the commit's time, or that of the environment.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def build(clone: Path, folder: Path) -> list[Path]:
    """The sdist and the wheel, in `folder`. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as name:
        tree, unpacked = Path(name, "tree"), Path(name, "unpacked")
        archive = Path(name, "commit.tar")
        _git(clone, "archive", "--format=tar", f"--output={archive}", "HEAD")
        _extract(archive, tree)
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git(clone, "log", "-1", "--format=%ct")
        sdist = _hatchling(tree, "sdist", folder, epoch)
        _extract(sdist, unpacked)
        (source,) = unpacked.iterdir()
        return [sdist, _hatchling(source, "wheel", folder, epoch)]


def _hatchling(tree: Path, target: str, folder: Path, epoch: str) -> Path:
    """The built file."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "hatchling", "build", f"--target={target}", f"--directory={name}"]
        subprocess.run(
            command, cwd=tree, env={**os.environ, "SOURCE_DATE_EPOCH": epoch}, check=True, stdout=subprocess.DEVNULL
        )
        (built,) = Path(name).iterdir()
        folder.mkdir(parents=True, exist_ok=True)
        target_file = folder / built.name
        target_file.write_bytes(built.read_bytes())
        return target_file


def _extract(archive: Path, folder: Path) -> None:
    folder.mkdir()
    subprocess.run(["tar", "--extract", f"--file={archive}", f"--directory={folder}"], check=True)


def _git(clone: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=clone, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def main() -> int:
    """The exit code."""
    clone, folder = map(Path, sys.argv[1:])
    if not (clone / ".git").exists():
        print("build: this is not a clone: pip wheel . builds a wheel of any source folder", file=sys.stderr)
        return 1
    try:
        built = build(clone.absolute(), folder.absolute())
    except subprocess.CalledProcessError as error:
        print(f"build: {' '.join(map(str, error.cmd))} failed; see above", file=sys.stderr)
        return 1
    for file in built:
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {os.path.relpath(file)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
