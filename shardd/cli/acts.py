"""Acts of the commands in the audit log, as those of the dashboard.

A command that changes something is marked with `@acts(…)`, the word of the audit log for what it does, and changes it within
`change`, `acting` or `under_way`, which record that. What had no need to be changed is named, and not recorded.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from socket import gethostname
from typing import Any, Final, TypeVar

import click

from shardd.cli.database import with_database
from shardd.cli.names import login_name, refuse, some
from shardd.cli.output import say
from shardd.config import Config
from shardd.errors import DatabaseError
from shardd.queue.act_log import Acting, ActLog, UnderWay
from shardd.queue.acts import ALREADY, DONE, NewAct, by_sudo, joined, named, nothing_to_do
from shardd.queue.database import Database
from shardd.queue.queries import Changes, Queries
from shardd.words import count

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")

HOW: Final = "command"
"""How somebody came in, in the audit log."""
SUDO: Final = "SUDO_USER"
_MARK: Final = "shardd_act"


@dataclass(frozen=True, slots=True)
class Operator:
    """Whoever runs the command."""

    user: str
    how: str = HOW


def acts(act: str) -> Callable[[Command], Command]:
    """Mark the function of a command that changes something; `act`: as the page and the API call the same."""

    def mark(command: Command) -> Command:
        setattr(command, _MARK, act)
        return command

    return mark


def act_of(command: click.Command) -> str | None:
    """What the audit log calls what a command does; None: it changes nothing."""
    return getattr(command.callback, _MARK, None)


def operator() -> Operator:
    """Whoever runs the command, with the account that sudo says was theirs before."""
    mine, before = login_name(), os.environ.get(SUDO, "")
    return Operator(mine if before in ("", mine) else by_sudo(mine, before))


class _CommandLog(ActLog):
    def _missed(self, new: NewAct, error: DatabaseError) -> None:
        what = joined(f"{new.act} {new.target}", "" if new.result == DONE else new.result)
        say(f"warning: the end of this is missing in the audit log ({what}): {error}", err=True)


def acting(
    database: Database, config: Config, target: str = "", detail: str = ""
) -> AbstractAsyncContextManager[Acting]:
    """Do something in one transaction, with its row of the audit log. Raises DatabaseError: nothing was done; and UnsureError.

    No text of a message and no number of a person: the log is kept when somebody is forgotten.
    """
    return _CommandLog(database, config.node).acting(operator(), gethostname(), _act(), target, detail)


def under_way(
    database: Database, config: Config, target: str, detail: str = ""
) -> AbstractAsyncContextManager[UnderWay]:
    """Do something that is not one transaction, with a row before and after it. Raises DatabaseError: then it must not begin."""
    return _CommandLog(database, config.node).under_way(operator(), gethostname(), _act(), target, detail)


async def record(database: Database, config: Config, target: str, detail: str = "") -> None:
    """Add what has happened, where neither of the others is possible; if it cannot be written, a warning says so."""
    await _CommandLog(database, config.node).record(operator(), gethostname(), _act(), target, detail)


def change(
    config: Config,
    one: str,
    work: Callable[[Queries], Awaitable[Result]],
    *,
    changed: Callable[[Result], Collection[str]],
    detail: Callable[[Result], str] = lambda _: "",
    repeat: Callable[[Callable[[], Awaitable[Result]]], Awaitable[Result]] | None = None,
) -> Result:
    """Do `work` in one transaction, with its row of the audit log, if it changed anything. Raises DatabaseError and UnsureError.

    `changed`: the names of the things called `one` that it changed. `repeat`: tries the transaction again, if that may help.
    """

    async def once(database: Database) -> Result:
        async with acting(database, config) as act:
            result = await work(act.database)
            names = sorted(changed(result))
            act.happened = bool(names)
            act.target, listed = named(one, names)
            act.detail = joined(detail(result), listed)
        return result

    async def all_of_it(database: Database) -> Result:
        return await (once(database) if repeat is None else repeat(partial(once, database)))

    return with_database(config, all_of_it)


def change_each(config: Config, one: str, work: Callable[[Queries], Awaitable[set[str]]], detail: str = "") -> set[str]:
    """`change` of work whose result is the names of what it changed."""
    return change(config, one, work, changed=lambda names: names, detail=lambda _: detail)


def change_some(config: Config, one: str, work: Callable[[Queries], Awaitable[Changes]], detail: str = "") -> Changes:
    """`change` of work of which some things may have had no need."""
    return change(config, one, work, changed=lambda changes: changes.changed, detail=lambda _: detail)


def report_changes(past: str, one: str, changes: Changes, refused: Mapping[str, Sequence[str]]) -> None:
    """As `report`, with those that were as requested already; `past` is one of `ALREADY`."""
    if changes.changed:
        say(f"{past} {count(len(changes.changed), one)}")
    if same := sorted(changes.same):
        why = ALREADY[past]
        say(nothing_to_do(one, same[0], why) if len(same) == 1 else f"{why}: {some(same)}")
    refuse(one, refused)


def _act() -> str:
    act = act_of(click.get_current_context().command)
    assert act is not None, "a command that changes something is marked with @acts"
    return act
