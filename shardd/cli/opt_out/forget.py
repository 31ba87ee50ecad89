"""`shardd opt-out forget`: erases people, shows how far it is, and says what it does not reach."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click

from shardd.cli.acts import acts, under_way
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.names import login_name, read_names
from shardd.cli.opt_out.recipients import spelling_of
from shardd.cli.options import config_option, json_option
from shardd.cli.output import ask, print_json, say
from shardd.config import Config
from shardd.errors import SharddError, UnsafeFileError, UsageError
from shardd.incoming_spool import IncomingSpool
from shardd.queue.database import Database
from shardd.queue.forgetting import Forgetting, Forgotten, OtherNode, Progress
from shardd.state_files import ID_FILE
from shardd.supervisor.inbound import receipt_spool
from shardd.words import count

WAIT: Final = 30.0
"""Seconds that it waits for jobs that are in flight."""
SHOW_EVERY: Final = 5.0
"""Seconds between lines about the progress."""
CONTINUE: Final = "shardd opt-out forget, without a number, continues it"
NOT_SEARCHED: Final = (
    "jobs to other people and to groups, but for quotes of what they wrote",
    "messages of other people, but for those that have a number or hidden id of theirs",
    "names of campaigns, devices and device groups",
    "keys of programs with their name, or with their number without its area code",
)
"""Where something of them may be left in the database."""
NOT_REACHED: Final = (
    "backups, logs and journals",
    "what programs and webhooks have read",
    "the contacts in the sessions of devices",
    "the copies of WhatsApp, the platforms and the phones",
)
"""Where something of them may be left outside of what this erases."""


@click.command("forget", epilog=examples("shardd opt-out forget +4915112345678"))
@click.argument("recipients", nargs=-1, metavar="[NUMBER]...")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option()
@config_option
@acts("forget")
def forget(*, recipients: tuple[str, ...], yes: bool, as_json: bool, config: Config) -> None:
    """Erase what is stored of people who ask to be forgotten.

    Number, names and texts go from the jobs, the inbox, the events, the list and its log. Only keyed hashes of their addresses
    stay, so that nothing is sent to them but what opt_outs.exempt allows: such a job is stored with their number. Jobs that wait
    end as opted_out. It cannot be undone; repeating it erases what came since. Without NUMBER, it continues what was
    interrupted. It ends with what it does not search or reach: among other things jobs to other people that mention them,
    backups, logs, and the state folders of other nodes.
    """
    spelling = spelling_of(config)
    addresses = sorted({spelling.address(name) for name in read_names(recipients)})
    if any(address.endswith("@g.us") for address in addresses):
        raise UsageError("a group is not a person: write the numbers of people")
    if not addresses and not with_database(config, lambda database: Forgetting(database).unfinished()):
        raise UsageError("nobody is named: write a phone number, several, or - for numbers on stdin, one per line")
    if not yes and addresses:
        ask(f"erase what is stored of {', '.join(addresses)}, for good?")
    shown = _Shown()
    try:
        done, others = with_database(config, partial(_forget, config=config, addresses=addresses, shown=shown))
    except BaseException:
        if not shown.ended:
            say(_interrupted(shown.progress), err=True)
        raise
    files = _erase_files(config.state_dir, done.spellings)
    if as_json:
        more = {
            "not_reached": others,
            "not_erased": [*NOT_SEARCHED, *NOT_REACHED],
            "still_sent": [*(config.opt_outs.exempt or ())],
        }
        print_json({**asdict(done), **asdict(files), **more})
    else:
        say(
            f"forgotten: {count(len(done.addresses), 'address', 'addresses')}. Erased: {_erased(asdict(done))}, "
            f"{count(files.files, 'file')}"
        )
        for line in (*_left(files), *map(_other_node, others), *_still_sent(config)):
            say(line)
        say(f"not searched: {'; '.join(NOT_SEARCHED)}")
        say(f"not reached: {'; '.join(NOT_REACHED)}")
    if done.in_flight:
        raise SharddError(
            f"{count(done.in_flight, 'job')} to them had started and not ended: run this again when "
            "shardd job list --state=sending does not show them any more"
        )


async def _forget(
    database: Database, *, config: Config, addresses: list[str], shown: _Shown
) -> tuple[Forgotten, list[OtherNode]]:
    work = Forgetting(database)
    target = count(len(addresses), "person", "people") if addresses else "those of an earlier run"
    async with under_way(database, config, target) as here:
        done = await work.forget(addresses, created_by=login_name(), wait=WAIT, report=shown)
        here.detail = f"erased {_erased(asdict(done))}"
    return done, await work.other_nodes(_state_id(config.state_dir))


class _Shown:
    """Shows the progress of what takes long."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._next = time.monotonic() + SHOW_EVERY

    @property
    def ended(self) -> bool:
        return not self.progress.remaining

    def __call__(self, progress: Progress) -> None:
        self.progress = progress
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SHOW_EVERY
            about = f" of about {progress.about:,}" if progress.about >= progress.looked else ""
            say(f"{progress.doing}: {progress.looked:,} rows{about} read", err=True)


def _interrupted(progress: Progress) -> str:
    if not progress.stopped:
        return "nothing is erased yet, and messages to them are not stopped: run this again"
    return (
        f"not finished: nothing is sent to them from now on. Erased so far: {_erased(progress.counts)}. Not erased yet: "
        f"{', '.join(progress.remaining)}. {CONTINUE}"
    )


def _erased(counts: dict[str, int]) -> str:
    return (
        f"{count(counts['jobs'], 'job')}, {count(counts['messages'], 'message')}, {count(counts['events'], 'event')}, "
        f"{count(counts['entries'], 'entry', 'entries')} of the list"
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """What is in this node's state folder."""

    files: int
    """That could not be stored, and were deleted."""
    waiting: list[str]
    """That have something of these people, and will be stored: running this again erases it."""
    unreadable: list[str]
    """Why some could not be read."""


def _erase_files(folder: Path, spellings: list[str]) -> _Files:
    """Delete incoming messages of these people that could not be stored, and look for those that will be."""
    digits = [spelling.encode() for spelling in spellings]
    spool = IncomingSpool(folder)
    deleted = 0
    waiting: list[str] = []
    unreadable: list[str] = []
    for path, damaged in _spooled(folder, spool, unreadable):
        try:
            if not any(one in path.read_bytes() for one in digits):
                continue
            if damaged:
                path.unlink()
                deleted += 1
            else:
                waiting.append(str(path))
        except FileNotFoundError:
            continue  # it is stored meanwhile
        except OSError as error:
            unreadable.append(f"{path}: {error.strerror}")
    return _Files(deleted, waiting, unreadable)


def _spooled(folder: Path, spool: IncomingSpool, unreadable: list[str]) -> Iterator[tuple[Path, bool]]:
    """The files with messages and receipts, and whether each was set aside."""
    try:
        yield from ((path, True) for path in list(spool.damaged()))
        yield from ((spool.folder / name, False) for name in spool.names())
        yield folder / receipt_spool.NAME, False
    except OSError as error:
        unreadable.append(f"{error.filename or folder}: {error.strerror}")


def _left(files: _Files) -> Iterator[str]:
    if files.waiting:
        yield (
            f"not erased, because they wait to be stored: {', '.join(files.waiting)}: run this again when they are gone"
        )
    for error in files.unreadable:
        yield f"not searched: {error}: run this as the account of shardd"


def _still_sent(config: Config) -> Iterator[str]:
    if config.opt_outs.exempt:
        classes = " and ".join(config.opt_outs.exempt)
        yield (
            f"still sent: jobs of class {classes} (opt_outs.exempt), which are stored with their number: run this again "
            "after one"
        )


def _other_node(node: OtherNode) -> str:
    return (
        f"not reached: the state folder {node.state_dir} of node {node.name} on {node.host}: run this there, too, which deletes "
        "their messages that could not be stored"
    )


def _state_id(folder: Path) -> str:
    """Of this host's state folder; empty: there is none, so that every node is another one."""
    with contextlib.suppress(OSError, UnsafeFileError, UnicodeError):
        return (folder / ID_FILE).read_text("ascii").strip()
    return ""
