"""Compares the files of an installed shardd with those of this version; writes and removes them.

`root`: the folder of the system that is changed, `/` for the running one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from shardd.errors import SharddError
from shardd.setup.files import MARK, OVERRIDE, SYSUSERS, UNIT, File

USER: Final = "shardd"
_RUNNING: Final = Path("/run/systemd/system")
"""Exists if systemd is PID 1; sd_booted(3)."""
_TIMEOUT: Final = 60.0
"""Seconds for a tool of systemd."""


class Found(StrEnum):
    """What is in the place of a file."""

    NOTHING = "nothing"
    SAME = "same"
    OLDER = "older"  # of shardd, with another content
    OPERATORS = "operators"  # a file that belongs to the operator, and is kept
    OTHER = "other"  # of somebody else, in the place of one of ours


@dataclass(frozen=True, slots=True)
class Place:
    """A file, and what is there."""

    file: File
    path: Path
    found: Found


def look(root: Path, wanted: Iterable[File]) -> list[Place]:
    """What is in the places of the files. Raises SharddError for one that cannot be read, or is not below `root`."""
    places = [(file, root / file.path.lstrip("/")) for file in wanted]
    for _, path in places:
        # An absolute link in an image is meant for the image, and leads to this machine's files here.
        if not path.parent.resolve().is_relative_to(root.resolve()):
            raise SharddError(
                f"{path.parent}: leads out of {root}, by a link to {path.parent.resolve()}: make it relative"
            )
    return [Place(file, path, _found(path, file)) for file, path in places]


def _found(path: Path, file: File) -> Found:
    try:
        mode = path.lstat().st_mode
        if not file.is_ours:
            # A link to a file elsewhere is the operator's choice, too.
            return Found.OPERATORS if path.is_file() else Found.OTHER
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        return Found.NOTHING
    except NotADirectoryError:
        return Found.OTHER
    except OSError as error:
        raise SharddError(f"{path}: cannot be read: {error.strerror}") from error
    if content == file.content:
        return Found.SAME
    return Found.OLDER if MARK in content else Found.OTHER


def conflicts(root: Path, places: Iterable[Place]) -> Iterator[str]:
    """What must be moved away first, and why."""
    for place in places:
        if place.found is Found.OTHER:
            kind = "is not a file of shardd" if place.file.is_ours else "is not a file"
            yield f"{place.path}: {kind}, and {place.file.path} belongs there: move it away"
    override = root / OVERRIDE.lstrip("/")
    if override.is_symlink() and override.readlink() == Path(os.devnull):
        yield f"{override}: the unit is masked: systemctl unmask shardd"
    elif os.path.lexists(override) and not (override.is_file() and MARK in override.read_bytes()):
        yield f"{override}: takes precedence over {UNIT}: move it away, and keep your changes with: systemctl edit shardd"


def notes(root: Path, places: Iterable[Place]) -> Iterator[str]:
    """What the operator may want to change."""
    override = root / OVERRIDE.lstrip("/")
    if override.is_file():
        yield f"{override}, made by `systemctl edit --full`, takes precedence over {UNIT}: compare them"
    for place in places:
        if place.found is not Found.OPERATORS:
            continue
        mode, secret = place.path.stat().st_mode, not place.file.mode & stat.S_IROTH
        if secret and mode & stat.S_IROTH:
            yield f"{place.path}: everybody may read it: chmod 600 {place.path}"
        if not secret and not mode & stat.S_IROTH:
            yield f"{place.path}: only its owner and group may read it: make sure that the user {USER} can"


def write(place: Place) -> None:
    """Write a file that is missing or older. Raises SharddError."""
    try:
        _make_folders(place.path.parent)
        temporary = place.path.with_name(f".{place.path.name}.{secrets.token_hex(4)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor
                file.write(place.file.content)
                os.fchmod(fd, place.file.mode)
                file.flush()
                os.fsync(fd)
            if place.file.is_ours:
                temporary.replace(place.path)
            else:
                with contextlib.suppress(FileExistsError):  # written meanwhile, by its owner
                    place.path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SharddError(f"{place.path}: cannot be written: {error.strerror}") from error


def delete(place: Place) -> None:
    """Delete a file of ours. Raises SharddError."""
    try:
        place.path.unlink(missing_ok=True)
    except OSError as error:
        raise SharddError(f"{place.path}: cannot be deleted: {error.strerror}") from error


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask is


def make_user(root: Path, places: Iterable[Place]) -> None:
    """Make user and group, unless they are there. Raises SharddError."""
    (rules,) = (place.file.content for place in places if place.file.path == SYSUSERS)
    command = ["systemd-sysusers", *([f"--root={root}"] if root != Path("/") else []), "-"]
    _run(
        command,
        rules,
        f"make the user with: useradd --system --home-dir /var/lib/{USER} --shell /usr/sbin/nologin {USER}",
    )


def has_user(root: Path) -> bool:
    """Whether the user is there."""
    if root == Path("/"):
        with contextlib.suppress(KeyError):
            return bool(pwd.getpwnam(USER))
        return False
    with contextlib.suppress(FileNotFoundError):
        return any(
            line.startswith(f"{USER}:") for line in (root / "etc/passwd").read_text(errors="replace").splitlines()
        )
    return False


def reload_systemd(root: Path) -> bool:
    """Let systemd read the unit; whether it runs here. Raises SharddError."""
    if root != Path("/") or not _RUNNING.is_dir():
        return False
    _run(["systemctl", "daemon-reload"], b"", "repeat it")
    return True


def has_systemd() -> bool:
    """Whether this machine has systemd installed."""
    return shutil.which("systemctl") is not None


def is_active(root: Path) -> bool:
    """Whether the service runs or starts."""
    return _state(root, "is-active") in {"active", "activating", "reloading", "deactivating"}


def is_enabled(root: Path) -> bool:
    """Whether the service starts with the machine."""
    return _state(root, "is-enabled").startswith("enabled")


def _state(root: Path, question: str) -> str:
    if root != Path("/") or not _RUNNING.is_dir():
        return ""
    done = subprocess.run(
        ["systemctl", question, "shardd.service"], capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    return done.stdout.strip()


def _run(command: list[str], given: bytes, otherwise: str) -> None:
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=_TIMEOUT, check=False)
    except FileNotFoundError:
        raise SharddError(f"{command[0]}: there is no such program; {otherwise}") from None
    except subprocess.TimeoutExpired:
        raise SharddError(f"{command[0]} did not end within {_TIMEOUT:g} s; {otherwise}") from None
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SharddError(f"{' '.join(command)}: {reason}; {otherwise}")
