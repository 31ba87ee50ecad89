"""Scripts and styles of others are unmodified, and come with their licences."""

from __future__ import annotations

import hashlib

from shardd.dashboard.static_files import FOLDER
from tests.support.guide import PAGES

VENDOR = FOLDER / "vendor"


def test_they_are_as_they_were_released() -> None:
    expected = dict(reversed(line.split()) for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    files = [file for file in VENDOR.iterdir() if file.suffix in (".js", ".css")]
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files} == expected


def test_each_has_its_licence_and_is_named_in_the_guide() -> None:
    for file in VENDOR.glob("*.min.*"):
        assert (VENDOR / f"{file.name.partition('.')[0]}.LICENSE").is_file()
        assert f"`{file.name}`" in PAGES["third-party"].read_text()
