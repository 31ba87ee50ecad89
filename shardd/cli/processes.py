"""Processes of shardd on this host, for commands that find none of its sockets."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from shardd.cli.options import DEFAULT_CONFIG

VARIABLE: Final = b"SHARDD_CONFIG="
PROGRAM: Final = re.compile(rb"(^|/)shardd$|^shardd\.")
"""A word of the command line of shardd: the installed program, or a module of the package."""


def is_start(pid: int | str) -> bool:
    """Whether a process is `shardd start`: after a crash a pid may belong to another process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"start" in words[1:] and any(PROGRAM.search(word) for word in words)


def is_being_started(config: Path | None) -> bool:
    """Whether a process is `shardd start` with this config file, as far as its command line and environment can be read."""
    if config is None:
        return False
    mine = config.resolve()
    found = (process for process in Path("/proc").glob("[0-9]*") if is_start(process.name))
    return any(_config_of(process) == mine for process in found)


def _config_of(process: Path) -> Path | None:
    """The config file of a `shardd start`, by its folder in /proc; None: it cannot be read, or has just ended."""
    try:
        words = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")]
        environ = (process / "environ").read_bytes().split(b"\0")
        folder = (process / "cwd").readlink()
    except OSError:
        return None
    named = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    named += [after for before, after in pairwise(words) if before == "--config"]
    named += [os.fsdecode(one[len(VARIABLE) :]) for one in environ if one.startswith(VARIABLE)]
    return (folder / (named or [DEFAULT_CONFIG])[0]).resolve()
