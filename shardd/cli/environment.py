"""The environment file of the service, read by commands: they need the values of `${NAME}` that the unit gives to the daemon.

As under the unit, a variable in the file replaces one of the process. The file belongs to the configs in its folder; another one
is named by SHARDD_ENVIRONMENT_FILE. What is wrong with it is reported only when a variable is missing that a command needs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardd.cli.early import is_start
from shardd.environment_file import UnreadableEnvironmentError, parse_environment
from shardd.errors import ConfigError

ENVIRONMENT_FILE: Final = "/etc/shardd/environment"
"""What the installed unit names."""
VARIABLE: Final = "SHARDD_ENVIRONMENT_FILE"
"""Names another file; empty: none."""
MAX_SIZE: Final = 256 * 1024
"""Bytes; a larger file is a mistake."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What became of the environment file."""

    note: str | None = None
    """Why a variable of it may be missing, and the fix."""
    is_secret: bool = False
    """Whether this user may not read it: only the daemon knows its variables."""

    def note_for(self, error: ConfigError) -> str | None:
        """The note, if the error is about a variable without a value."""
        return self.note if error.lacks_variables else None


def adopt_environment(config_file: Path) -> Environment:
    """Set the variables of the environment file that belongs to a config."""
    file = _file_for(config_file)
    if file is None or (is_start() and "NOTIFY_SOCKET" in os.environ):  # systemd has read it, or other files
        return Environment()
    try:
        content = _content(file)
    except FileNotFoundError:
        return Environment(
            f"{file}: there is no such file, and {VARIABLE} names it" if VARIABLE in os.environ else None
        )
    except PermissionError:
        return Environment(f"{file}: user {os.geteuid()} may not read it; run this as root", is_secret=True)
    except OSError as error:
        return Environment(f"{file}: cannot be read: {error.strerror}")
    try:
        read = parse_environment(content)
    except UnreadableEnvironmentError as error:
        return Environment(f"{file}: {error}")
    os.environ.update(read.variables)
    return Environment("\n".join(f"{file}:{flaw.line}: this line {flaw.text}" for flaw in read.flaws) or None)


def _file_for(config_file: Path) -> Path | None:
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    usual = Path(ENVIRONMENT_FILE)
    return usual if Path(os.path.normpath(config_file.absolute())).parent == usual.parent else None


def _content(file: Path) -> bytes:
    """Raises OSError; a folder or a pipe is none that could be read."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as opened:  # noqa: PTH123  # a descriptor
        content = opened.read(MAX_SIZE + 1) or b""
    if len(content) > MAX_SIZE:
        raise OSError(0, f"it has more than {MAX_SIZE} bytes")
    return content
