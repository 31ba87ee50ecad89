"""`shardd config`: config files, without starting anything."""

from __future__ import annotations

from pathlib import Path

import click

from shardd.cli.environment import adopt_environment
from shardd.cli.options import default_config
from shardd.cli.output import say, say_error
from shardd.cli.words import count
from shardd.config import load_config, sample_config
from shardd.errors import ConfigError
from shardd.transports.whatsapp.media.recording import NOT_INSTALLED, is_installed


@click.group("config")
def config_group() -> None:
    """Check a config file, or print a sample."""


@config_group.command("check")
@click.argument("file", type=click.Path(path_type=Path), default=default_config, metavar="[FILE]")
def check(file: Path) -> None:
    """Report all errors in a config file.

    Without FILE, in the one that other commands use: $SHARDD_CONFIG, else /etc/shardd/shards.yaml. For a config in /etc/shardd,
    /etc/shardd/environment is read, too; $SHARDD_ENVIRONMENT_FILE names another one.

    Exit codes: 0 no error; 78 errors.
    """
    environment = adopt_environment(file)
    try:
        config = load_config(file)
    except ConfigError as error:
        lines = str(error).splitlines()
        for line in lines:
            say_error(line)
        if len(lines) > 1:
            say(f"{len(lines)} errors", err=True)
        for line in (environment.note_for(error) or "").splitlines():
            say(f"note: {line}", err=True)
        raise click.exceptions.Exit(ConfigError.exit_code) from None
    database = "the database of dsn" if config.database else "a PostgreSQL of its own"
    summary = f"node {config.node}, {count(config.shards, 'shard')}, {database}, state in {config.state_dir}"
    say(f"{file}: good ({summary})")
    if not is_installed():
        say(f"note: {NOT_INSTALLED}", err=True)


@config_group.command("sample")
def sample() -> None:
    """Print a config file with all options.

    Each with its default and a comment.
    """
    for line in sample_config().splitlines():
        say(line)
