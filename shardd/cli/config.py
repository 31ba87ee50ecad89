"""`shardd config`: look at a config file without starting anything."""

from __future__ import annotations

from pathlib import Path

import click

from shardd.cli.output import say, say_error
from shardd.config import Config, load_config, sample_config
from shardd.errors import ConfigError


@click.group("config")
def config_group() -> None:
    """Check a config file, or print a commented sample."""


@config_group.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Report every error in FILE; exit with 0 when there is none, else with 78."""
    try:
        config = load_config(file)
    except ConfigError as error:
        lines = str(error).splitlines()
        for line in lines:
            say_error(line)
        if len(lines) > 1:
            say(f"{len(lines)} errors", err=True)
        raise click.exceptions.Exit(ConfigError.exit_code) from None
    say(f"{file}: good ({_summary(config)})")


@config_group.command("sample")
def sample() -> None:
    """Print a config file with every option, its default and a comment."""
    for line in sample_config().splitlines():
        say(line)


def _summary(config: Config) -> str:
    database = "the database of dsn" if config.database else "a PostgreSQL of its own"
    shards = "1 shard" if config.shards == 1 else f"{config.shards} shards"
    return f"node {config.node}, {shards}, {database}, state in {config.state_dir}"
