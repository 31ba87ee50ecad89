"""Locked versions: the files agree with pyproject.toml and each other, and the licence page lists their packages."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
EVERYTHING = [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
FILES = {
    "requirements.txt": PROJECT["project"]["dependencies"],
    "requirements.extras.txt": EVERYTHING,
    "requirements.dev.txt": [*EVERYTHING, *(one for group in GROUPS.values() for one in group)],
    "requirements.build.txt": [*GROUPS["build"], *PROJECT["build-system"]["requires"]],
}
"""What each must satisfy."""


def entries(file: str) -> Iterator[tuple[Requirement, list[str]]]:
    """What a file locks, with its hashes."""
    text = "".join(line for line in (ROOT / file).read_text().splitlines(keepends=True) if not line.startswith("#"))
    for entry in text.replace("\\\n", " ").splitlines():
        line, *hashes = entry.split(" --hash=")
        yield Requirement(line), [one.strip() for one in hashes]


def locked(file: str) -> dict[str, list[Requirement]]:
    """Several of one package, where it depends on the Python which one is installed."""
    found: dict[str, list[Requirement]] = {}
    for requirement, _ in entries(file):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version_of(requirement: Requirement) -> Version:
    (one,) = requirement.specifier
    assert one.operator == "=="
    return Version(one.version)


def is_for(requirement: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_is_locked_within_its_range(file: str, python: str) -> None:
    there = locked(file)
    for requirement in map(Requirement, FILES[file]):
        found = [one for one in there.get(canonicalize_name(requirement.name), []) if is_for(one, python)]
        assert len(found) == 1, f"{requirement} is not locked in {file}: run ./scripts/lock"
        assert requirement.specifier.contains(version_of(found[0])), f"{found[0]} is not {requirement}: ./scripts/lock"


@pytest.mark.parametrize("file", FILES)
def test_each_package_has_hashes_and_no_index_is_named(file: str) -> None:
    for requirement, hashes in entries(file):
        assert version_of(requirement)
        assert requirement.url is None
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
    assert not re.search(r"://|--(extra-)?index|--find-links", (ROOT / file).read_text())


def test_the_files_agree() -> None:
    everything = locked("requirements.dev.txt")
    for file in FILES:
        for name, found in locked(file).items():
            assert set(map(version_of, found)) <= set(map(version_of, everything[name])), (file, name)


def test_what_is_installed_is_what_is_locked() -> None:
    """So the scripts and CI install it so; a package that only the newest lock names may be missing in a tree at work."""
    for name, found in locked("requirements.dev.txt").items():
        wanted = {version_of(one) for one in found if one.marker is None or one.marker.evaluate()}
        try:
            there = Version(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
        assert there in wanted, f"{name} {there} is installed: run ./scripts/test, or install requirements.dev.txt"


def test_whatever_a_locked_package_needs_is_locked_too() -> None:
    there = locked("requirements.dev.txt")
    for name in locked("requirements.extras.txt"):
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in there, f"{name} needs {requirement}"


def test_third_party_md_names_every_part_and_its_licence() -> None:
    program = ROOT / "scripts" / "lib" / "third_party.py"
    ran = subprocess.run([sys.executable, program, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
