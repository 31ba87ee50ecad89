"""Commands of shardd that a text names: whether there is such a command, with these options."""

from __future__ import annotations

import re
from typing import Final

import click

from shardd.cli.main import cli

COMMAND: Final = re.compile(r"(?<![\w./-])shardd ([a-z][a-z-]*(?: [a-z][a-z-]*)?)([^;&|#\n]*)")
"""Its words, such as `device set`, and what follows them."""


def commands_in(text: str) -> list[tuple[str, str]]:
    """Those between backticks."""
    return [found for code in re.findall(r"`([^`]+)`", text) for found in COMMAND.findall(code)]


def assert_command_exists(words: str, rest: str) -> None:
    """Raises AssertionError."""
    context = click.Context(cli)
    first, _, second = words.partition(" ")
    command = cli.get_command(context, first)
    assert command is not None, words
    if isinstance(command, click.Group):
        inner = command.get_command(context, second) if second else None
        assert inner is not None or not second, words
        command = inner or command
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for option in re.findall(r"(?<!\S)(--[a-z-]+)", rest):
        assert option in options | {"--help"}, (words, option)
