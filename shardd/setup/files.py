"""The files of an installed shardd, and where they belong.

Those that shardd owns are below /usr/local, where systemd and most shells look, too: what the operator puts into /etc takes
precedence (systemd.unit(5), sysusers.d(5)). /etc/shardd belongs to the operator, who only gets a first version of its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardd.setup.shells import completion_script

MARK: Final = b"`shardd setup systemd` writes this file"
"""Is in each file that shardd owns."""
UNIT: Final = "/usr/local/lib/systemd/system/shardd.service"
SYSUSERS: Final = "/usr/local/lib/sysusers.d/shardd.conf"
COMPLETIONS: Final = {
    "bash": "/usr/local/share/bash-completion/completions/shardd",
    "zsh": "/usr/local/share/zsh/site-functions/_shardd",
    "fish": "/etc/fish/completions/shardd.fish",  # /usr/local is searched only where XDG_DATA_DIRS names it
}
CONFIG: Final = "/etc/shardd/shards.yaml"
ENVIRONMENT: Final = "/etc/shardd/environment"
OVERRIDE: Final = "/etc/systemd/system/shardd.service"
"""Takes precedence over UNIT."""
_PROGRAM: Final = "ExecStart=/opt/shardd/bin/shardd "


@dataclass(frozen=True, slots=True)
class File:
    """A file to be installed."""

    path: str
    content: bytes
    mode: int = 0o644
    is_ours: bool = True
    """False: the operator's, and written only if there is none."""


def files(program: Path) -> Iterator[File]:
    """All files, for a service that runs this program."""
    yield File(SYSUSERS, _read("shardd.sysusers.conf").encode())
    unit = _read("shardd.service")
    assert unit.count(_PROGRAM) == 1
    yield File(UNIT, unit.replace(_PROGRAM, f"ExecStart={program} ").encode())
    for shell, path in COMPLETIONS.items():
        yield File(path, completion_script(shell).encode() + b"\n# " + MARK + b", and an upgrade replaces it.\n")
    yield File(CONFIG, _read("first.yaml").encode(), is_ours=False)
    yield File(ENVIRONMENT, _read("first.environment").encode(), mode=0o600, is_ours=False)


def _read(name: str) -> str:
    """A file of this package. Its systemd files are in systemd/ in a clone, and put here by the build of a wheel."""
    packaged = Path(__file__).with_name(name)
    in_clone = Path(__file__).parents[2] / "systemd" / name
    return (packaged if packaged.exists() else in_clone).read_text(encoding="utf-8")
