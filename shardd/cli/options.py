"""Options and values that many commands share.

A command names one of the `--config` options and receives a `Config`, or several. All but one of them accept a file with errors
that do not concern the command, and print a warning: an operator must reach the daemon although somebody is editing its config.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Coroutine
from functools import reduce, wraps
from pathlib import Path
from typing import Any, Final

import click

from shardd.cli.environment import Environment, adopt_environment
from shardd.cli.output import say_error
from shardd.cli.running import run_coroutine
from shardd.config import Config, load_config
from shardd.config.load import TO_ASK_THE_DAEMON, TO_REACH_THE_DATABASE, load_readable
from shardd.config.values import Number, Reader, RefusedError, Whole, closest
from shardd.errors import ConfigError, UsageError

DEFAULT_CONFIG: Final = "/etc/shardd/shards.yaml"
MOST_ROWS: Final = 100_000


class ReadBy(click.ParamType[Any]):
    """A value that a reader of the config reads, with the errors of `read_value`."""

    name = "text"

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        if isinstance(reader, Number | Whole):
            self.name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002 - of click
        """As in click."""
        assert param is not None  # only prompts have none
        return read_value(param.opts[0], self._reader, value) if isinstance(value, str) else value


class OneOf(click.Choice[str]):
    """One of some words; a slip of the pen is answered with what was probably meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """As in click."""
        message = super().get_invalid_choice_message(value, ctx).rstrip(".")
        near = closest(str(value).lower(), self.choices)
        return f"{message}; did you mean {near}?" if near else message


def read_value(option: str, reader: Reader, text: str) -> Any:
    """The value of an option. Raises UsageError, which does not show a secret."""
    try:
        return reader.read(text)
    except RefusedError as error:
        shown = "the value (not shown)" if reader.secret else text
        raise UsageError(f"{option}: {shown} {error}") from None


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def all_of(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help text."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def run_async(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine function as a command: click calls no others."""

    @wraps(command)
    def run(**values: Any) -> None:
        run_coroutine(command(**values))

    return run


def default_config() -> str:
    """The config file of a command that names none."""
    return os.environ.get("SHARDD_CONFIG", DEFAULT_CONFIG)


def _config_option(load: Callable[[Path, Environment], Config]) -> Decorator:
    def read(context: click.Context, _option: click.Parameter, file: Path) -> Config | None:
        if context.resilient_parsing:  # the shell asks for a completion
            return _to_complete(file)
        return _adopt_and_load(file, load)

    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        default=default_config,
        show_default=f"$SHARDD_CONFIG, else {DEFAULT_CONFIG}",
        callback=read,
        help="Config file.",
    )


def _adopt_and_load(file: Path, load: Callable[[Path, Environment], Config]) -> Config:
    environment = adopt_environment(file)
    try:
        return load(file, environment)
    except ConfigError as error:
        if (note := environment.note_for(error)) is None:
            raise
        raise ConfigError(f"{error}\n{note}") from None


def load_other_config(file: Path) -> Config:
    """The config of another database than that of the command, as `database_config_option` reads it. Raises ConfigError."""
    return _adopt_and_load(file, _tolerant(TO_REACH_THE_DATABASE))


def _to_complete(file: Path) -> Config | None:
    """For the completion of a command line, which must not print anything."""
    adopt_environment(file)
    try:
        return load_readable(file, TO_REACH_THE_DATABASE).config
    except ConfigError:
        return None


def _tolerant(needed: Collection[tuple[str, ...]]) -> Callable[[Path, Environment], Config]:
    def load(file: Path, environment: Environment) -> Config:
        read = load_readable(file, needed)
        refused = read.refused
        if refused is not None and not (refused.lacks_only_variables and environment.is_secret):
            first, *others = str(refused).splitlines()
            more = f" (and {len(others)} more; see: shardd config check {file})" if others else ""
            say_error(f"shardd: warning: {first}{more}; this command does not need it and goes on")
        return read.config

    return load


config_option = _config_option(lambda file, _environment: load_config(file))
"""For a command that needs the whole config: any error in the file is a ConfigError."""
database_config_option = _config_option(_tolerant(TO_REACH_THE_DATABASE))
"""For a command that only needs the database: a ConfigError only when the file does not say where that is."""
daemon_config_option = _config_option(_tolerant(TO_ASK_THE_DAEMON))
"""For a command that only needs the running daemon: a ConfigError only when the file does not say where that is."""


def _read_several(context: click.Context, _option: click.Parameter, files: tuple[Path, ...]) -> list[Config]:
    if context.resilient_parsing:
        return []
    return [load_other_config(file) for file in files]


database_configs_option = click.option(
    "--config",
    "configs",
    type=click.Path(path_type=Path),
    multiple=True,
    default=lambda: (default_config(),),
    show_default=f"$SHARDD_CONFIG, else {DEFAULT_CONFIG}",
    callback=_read_several,
    help="Config file; one for each region.",
)
"""For a command that looks at the databases of several regions, passed as `configs`; each as for `database_config_option`."""

other_region_option = click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    metavar="CONFIG",
    help="Config file that says where the other region's database is.",
)
"""Passed as `target`, for `load_other_config`."""

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def make_limit_option(most: int) -> Decorator:
    """`--limit`, which may be as high as `most`."""
    help_text = f"Maximum number of rows, up to {most:,}."
    return click.option("--limit", type=ReadBy(Whole(1, most)), default=50, show_default=True, help=help_text)


limit_option = make_limit_option(MOST_ROWS)


def json_option(help: str = "Print an object, for programs; times in ISO 8601.") -> Decorator:  # noqa: A002 - as in click
    """`--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=help)


json_list_option = json_option("Print a list of objects, for programs; times in ISO 8601.")
