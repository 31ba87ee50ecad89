"""What `--help` shows, and what a shell proposes: for every command there is."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from shardd.cli.main import cli
from tests.support.command import Command
from tests.support.daemon import Producer
from tests.support.terminal import Terminal

NARROW = 60


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, with its words after `shardd`."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


def examples(command: click.Command) -> list[str]:
    heading, *lines = (command.epilog or "").removeprefix("\b\n").splitlines()
    assert heading == ("Examples:" if len(lines) > 1 else "Example:")
    return [line.removeprefix("  ") for line in lines]


def words(example: str) -> list[str]:
    """The arguments of `shardd` in an example, as a shell reads it."""
    inner = re.search(r"\$\((.*)\)", example)
    program, *rest = shlex.split(inner[1] if inner else example)
    assert program == "shardd", example
    return [word for index, word in enumerate(rest) if not {"<", ">"} & set(rest[max(0, index - 1) : index + 1])]


def parse(arguments: list[str]) -> tuple[str, ...]:
    """Parse without running anything; the words of the command. Raises click's or shardd's error."""
    command: click.Command = cli
    context: click.Context | None = None
    path: tuple[str, ...] = ()
    while True:
        context = command.make_context(path[-1] if path else "shardd", arguments, parent=context)
        if not isinstance(command, click.Group):
            return path
        name, found, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert found is not None
        command, path = found, (*path, name)


@pytest.fixture
def place(tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that examples name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARDD_CONFIG", str(config_file))
    for name in ("dump.sql", "unsubscribed.csv", "ids.txt"):
        (tmp_path / name).touch()


def test_every_help_ends_with_examples_that_the_command_takes(place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, command in commands():
        found = examples(command)
        assert 1 <= len(found) <= 2, path
        for example in found:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"berlin-1\n")))
            assert parse(words(example))[: len(path)] == path, example
        context = click.Context(command, info_name=" ".join(["shardd", *path]), terminal_width=NARROW)
        lines = command.get_help(context).splitlines()
        assert {f"    {example}" for example in found} <= set(lines), path
        assert max(map(len, lines)) <= NARROW, (path, lines)


DIFFERS = {
    "--role": "of a token that sends; elsewhere of a session of psql",
    "--class": "of a new job; elsewhere it chooses among jobs, or settings",
    "--timeout": "a person with a phone needs longer than a program",
    "--timezone": "of the times in the data of another system; elsewhere of a device",
}
"""Options that do not have one default."""


def test_an_option_has_the_same_default_in_every_command() -> None:
    defaults: dict[str, dict[Any, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, command in commands():
        for option in command.params:
            if isinstance(option, click.Option):
                default = option.default if isinstance(option.default, str | int | bool) else None
                defaults[option.opts[0]][default].append(" ".join(path))
    assert {name: dict(found) for name, found in defaults.items() if len(found) > 1 and name not in DIFFERS} == {}


async def complete(shardd: Command, line: str) -> list[str]:
    """What bash proposes at the end of a line."""
    parts = line.split(" ")
    asked = {"_SHARDD_COMPLETE": "bash_complete", "COMP_WORDS": "\n".join(parts), "COMP_CWORD": str(len(parts) - 1)}
    shardd.environ |= asked
    ran = await shardd()
    assert (ran.code, ran.err) == (0, "")
    return [proposal.removeprefix("plain,") for proposal in ran.out.split()]


async def test_a_shell_proposes_commands_states_devices_and_nodes(shardd: Command, producer: Producer) -> None:
    producer.add_devices(2, prefix="berlin-")
    producer.add_devices(1, prefix="jakarta-")
    assert await complete(shardd, "shardd st") == ["start", "status", "stop"]
    assert await complete(shardd, "shardd job re") == ["resolve", "retry", "revoke"]
    assert await complete(shardd, "shardd job list --state in") == ["in_doubt"]
    assert await complete(shardd, "shardd job list --unr") == ["--unreadable"]
    for line in ("device pause ber", "device show ber", "send ber", "job list --device ber", "group add team ber"):
        assert await complete(shardd, f"shardd {line}") == ["berlin-1", "berlin-2"], line
    assert await complete(shardd, "shardd device pause berlin-1 - jak") == ["jakarta-1"]
    assert await complete(shardd, "shardd producer add shop --device jak") == ["jakarta-1"]
    for id, name in (("1", "host-a"), ("2", "host-a"), ("3", "other")):  # noqa: A001  # a field's name
        producer.execute(
            "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl) SELECT %s, %s, gen_random_uuid(), 8, 'x', 9",
            *(id, name),
        )
    assert await complete(shardd, "shardd cluster cordon ho") == ["host-a"]


@pytest.mark.parametrize("config", ["database: {dsn: 'host=127.0.0.1 port=1'}", "state_dir: nothing", "shards: [", ""])
async def test_without_a_database_nothing_is_proposed_and_nothing_is_said(tmp_path: Path, config: str) -> None:
    file = tmp_path / "shards.yaml"
    if config:
        file.write_text(f"{config}\n")
    assert await complete(Command(file), "shardd device pause ber") == []


async def test_a_slip_in_a_choice_is_answered_with_what_was_meant(shardd: Command) -> None:
    ran = await shardd("device", "list", "--state=pausd")
    assert (ran.code, ran.out) == (64, "")
    assert ran.err.endswith("; did you mean paused?; see shardd device list --help\n")


VIEWS = (
    *(
        "job list",
        "job show 1",
        "device list",
        "device show berlin-1",
        "group list",
        "group show team",
        "campaign list",
    ),
    *("campaign show spring", "event list", "inbox list", "opt-out list", "producer list", "webhook list"),
    *("db status", "job cancel --device=berlin-1 --dry-run", "cluster list"),
)


@pytest.mark.parametrize("columns", [NARROW, 100])
async def test_views_fit_the_terminal(shardd: Command, producer: Producer, columns: int) -> None:
    producer.add_devices(2, prefix="berlin-")
    for statement in (
        "INSERT INTO shardd.campaigns (id) VALUES ('spring')",
        "INSERT INTO shardd.device_groups (id) VALUES ('team')",
        "INSERT INTO shardd.device_group_members VALUES ('team', 'berlin-1'), ('team', 'berlin-2')",
        "INSERT INTO shardd.opt_outs (recipient, note) VALUES ('+4915199999999', 'unsubscribed by the link in a newsletter')",
        "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl) VALUES (1, 'x', gen_random_uuid(), 8, 'x', 9)",
        "UPDATE shardd.devices SET paused_at = now(), paused_why = 'the phone is at the repair shop until Monday'",
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) VALUES ('berlin-1', '+4915112345678', 'x', 'spring')",
    ):
        producer.execute(statement)
    for view in VIEWS:
        async with Terminal(shardd.environ, *view.split(), columns=columns) as terminal:
            assert await terminal.end() == 0, (view, terminal.text)
        lines = terminal.text.replace("\r\n", "\n").splitlines()
        assert max(map(len, lines)) <= columns, (view, lines)
