"""`shardd setup`: what the machine needs to run shardd as a service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from shardd.cli.help import examples
from shardd.cli.output import say, say_error
from shardd.errors import UsageError
from shardd.setup.files import CONFIG, files
from shardd.setup.install import (
    USER,
    Found,
    Place,
    conflicts,
    delete,
    has_systemd,
    has_user,
    is_active,
    is_enabled,
    look,
    make_user,
    notes,
    reload_systemd,
    write,
)
from shardd.setup.program import find_program, obstacles, parts

_WORDS: Final = {
    Found.NOTHING: "create",
    Found.OLDER: "replace",
    Found.SAME: "unchanged",
    Found.OPERATORS: "keep",
}


@click.group("setup", epilog=examples("shardd setup systemd --dry-run"))
def setup_group() -> None:
    """Install or remove the service."""


@setup_group.command("systemd", epilog=examples("shardd setup systemd --dry-run", "shardd setup systemd"))
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option(
    "--remove", is_flag=True, help="Remove what this command installed, except user, config and environment file."
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
    default=Path("/"),
    show_default=True,
    metavar="DIR",
    help="The system to change, for example an image.",
)
def systemd(root: Path, *, dry_run: bool, remove: bool) -> None:
    """Install the service for systemd, or its newer version.

    Makes the user and group shardd, the unit, the completion for bash, zsh and fish, and, if there is none yet, a config and an
    environment file in /etc/shardd. What is in /etc/shardd is never changed. The unit starts the program that runs this command.
    It can be repeated, and neither starts nor stops the service. Needs root.

    The service and commands take the values of ${NAME} in a config in /etc/shardd from /etc/shardd/environment, if they may
    read it: they replace those of the shell. SHARDD_ENVIRONMENT_FILE names another file for commands.
    """
    running = root == Path("/")
    program = find_program()
    places = look(root, files(program))
    errors: list[str] = []
    if not remove:
        errors += conflicts(root, places)
        errors += obstacles(parts(program), Path(sys.prefix)) if running else ()
    if running and not dry_run and os.geteuid() != 0:
        errors.append("this command writes below /etc and /usr/local: run it as root; --dry-run shows what it would do")
    if running and not has_systemd():
        errors.append(
            "this machine has no systemd (no systemctl): let its own service manager run `shardd start`, or name the system to "
            "change with --root"
        )
    if remove and (is_active(root) or is_enabled(root)):
        errors.append("the service runs, or starts with the machine: systemctl disable --now shardd")
    for error in errors:
        say_error(f"shardd: {error}")
    if errors:
        raise click.exceptions.Exit(UsageError.exit_code)
    if remove:
        _remove(root, places, dry_run=dry_run)
    else:
        _install(root, places, dry_run=dry_run)


def _install(root: Path, places: list[Place], *, dry_run: bool) -> None:
    for place in places:
        if not dry_run and place.found in (Found.NOTHING, Found.OLDER):
            write(place)
        _say(str(place.path), _WORDS[place.found], dry_run=dry_run)
    is_new = not has_user(root)
    if not dry_run:
        make_user(root, places)
    _say(f"user and group {USER}", "create" if is_new else "unchanged", dry_run=dry_run)
    if dry_run:
        return
    reloaded = reload_systemd(root)
    for note in notes(root, places):
        say(f"note: {note}", err=True)
    if is_active(root):
        say("the service runs: systemctl restart shardd starts this version")
    elif reloaded:
        say(f"next: edit {CONFIG}, then: shardd config check && systemctl enable --now shardd")
    elif root == Path("/"):
        say("systemd does not run here: it reads the unit when it starts")


def _remove(root: Path, places: list[Place], *, dry_run: bool) -> None:
    for place in places:
        is_ours = place.found in (Found.SAME, Found.OLDER)
        if is_ours and not dry_run:
            delete(place)
        if place.found is not Found.NOTHING:
            _say(str(place.path), "remove" if is_ours else "keep", dry_run=dry_run)
    if not dry_run:
        reload_systemd(root)


def _say(what: str, verb: str, *, dry_run: bool) -> None:
    past = {"create": "created", "replace": "replaced", "keep": "kept", "remove": "removed"}
    say(f"{verb if dry_run else past.get(verb, verb):<9}  {what}")
