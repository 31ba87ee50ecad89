"""The config of commands that only ask the daemon or the database: an error elsewhere in the file is a warning to them."""

from __future__ import annotations

from pathlib import Path

from shardd.cli.output import say_error
from shardd.config import Config
from shardd.config.readable import TO_ASK_THE_DAEMON, TO_REACH_THE_DATABASE, Readable, load_readable


def daemon_config(file: Path) -> Config:
    """For a command that only asks the running daemon. Raises ConfigError when the file does not say where that is."""
    return _with_warning(file, load_readable(file, TO_ASK_THE_DAEMON))


def database_config(file: Path) -> Config:
    """For a command that only needs the database. Raises ConfigError when the file does not say where that is."""
    return _with_warning(file, load_readable(file, TO_REACH_THE_DATABASE))


def _with_warning(file: Path, read: Readable) -> Config:
    if read.refused is not None:
        first, *others = str(read.refused).splitlines()
        more = f" (and {len(others)} more; see: shardd config check {file})" if others else ""
        say_error(f"shardd: warning: {first}{more}; until then this command goes on without it")
    return read.config
