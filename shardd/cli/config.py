"""`shardd config`: config files, without starting anything."""

from __future__ import annotations

from pathlib import Path

import click

from shardd.cli.environment import adopt_environment
from shardd.cli.help import examples
from shardd.cli.options import default_config
from shardd.cli.output import say, say_error
from shardd.config import Config, load_config, sample_config
from shardd.config.on_host import doubtful
from shardd.errors import ConfigError
from shardd.pgbouncer import PgBouncerError, find_program
from shardd.transports.whatsapp.media.recording import NOT_INSTALLED, is_installed
from shardd.words import count


@click.group("config", epilog=examples("shardd config check"))
def config_group() -> None:
    """Check a config file, or print a sample."""


@config_group.command("check", epilog=examples("shardd config check", "shardd config check shards.yaml"))
@click.argument("file", type=click.Path(path_type=Path), default=default_config, metavar="[FILE]")
def check(file: Path) -> None:
    """Report all errors in a config file.

    Also of folders and files that it names, if they are not what they should be on this host.

    Without FILE, in the one that other commands use: $SHARDD_CONFIG, else /etc/shardd/shards.yaml. For a config in /etc/shardd,
    /etc/shardd/environment is read, too; $SHARDD_ENVIRONMENT_FILE names another one.

    Exit codes: 0 no error; 78 errors.
    """
    environment = adopt_environment(file)
    try:
        config = load_config(file, on_this_host=True)
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
    for doubt in doubtful(config):
        say(f"note: {doubt}", err=True)
    _say_pooler(config)
    if not is_installed():
        say(f"note: {NOT_INSTALLED}", err=True)


def _say_pooler(config: Config) -> None:
    """Whether a PgBouncer could be run for the sessions of devices."""
    settings = config.transports.whatsapp
    if settings.pgbouncer or settings.pooler == "off":
        return
    when = "if WhatsApp devices need more connections than PostgreSQL has"
    try:
        program = find_program(None if settings.pooler == "auto" else settings.pooler)
    except PgBouncerError as error:
        say(f"note: {when}, fewer of them are open at once and the others wait: {error}", err=True)
    else:
        say(f"{when}, shardd runs PgBouncer {program.version} ({program.path})")


@config_group.command("sample", epilog=examples("shardd config sample > shards.yaml"))
def sample() -> None:
    """Print a config file with all options.

    Each with its default and a comment.
    """
    for line in sample_config().splitlines():
        say(line)
