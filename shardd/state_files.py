"""The files of the state folder, opened so that no planted link leads elsewhere.

The daemon appends to, truncates and deletes files in its state folder, perhaps as root; a link there could direct that at any
file of the machine. So below the state folder no link is followed, and a file must be a regular one of our own, with one name,
and writable only by us. The path of the state folder itself may contain links: the operator configured it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import re
import secrets
import stat
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from shardd.errors import UnsafeFileError

ID_FILE: Final = "state.id"
STARTS_FILE: Final = "incarnations"
STARTS_KEPT: Final = 256
"""Starts that are remembered: what an earlier one left unsettled is in doubt."""
_GET_GENERATION: Final = 0x80087601
"""FS_IOC_GETVERSION of linux/fs.h: ext4, XFS, btrfs and F2FS know it."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
# O_NONBLOCK: opening a pipe in a file's place must not block.
_CAREFULLY: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_state_folder(state_dir: Path, setting: str = "state_dir") -> int:
    """A descriptor of the state folder. Raises UnsafeFileError when files in it are not safe, OSError.

    `setting`: the one that names this folder, for errors.
    """
    fd = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found, me = os.fstat(fd), os.geteuid()
    if found.st_uid not in (0, me):
        flaw = (
            f"belongs to {_user(found.st_uid)}, and shardd runs as {_user(me)}: run shardd as {_user(found.st_uid)}, or name a "
            "folder of your own"
        )
    elif found.st_mode & stat.S_IWOTH:
        flaw = f"is writable by everybody: chmod o-w {state_dir}"
    else:
        return fd
    os.close(fd)
    raise UnsafeFileError(f"{setting} {state_dir} {flaw}")


def open_folder(state_dir: Path, name: str, *, make: bool = False) -> int:
    """A descriptor of a folder directly below the state folder. Raises UnsafeFileError, OSError."""
    path = state_dir / name
    parent = open_state_folder(state_dir)
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _CAREFULLY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UnsafeFileError(f"{path} is not a folder: move it away") from None
            raise
    finally:
        os.close(parent)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
        os.close(fd)
        raise UnsafeFileError(f"{path} {_whose(found)}: chown it to {_user(os.geteuid())} and chmod 700 it")
    return fd


def open_file(state_dir: Path, name: str, flags: int) -> int:
    """A descriptor of `NAME` or `FOLDER/NAME` below the state folder, close-on-exec; made with mode 0600, its folder with 0700.

    With O_TRUNC the file is emptied only once it is known to be safe. Raises UnsafeFileError, OSError.
    """
    folder, _, file = name.rpartition("/")
    make = bool(flags & os.O_CREAT)
    parent = open_folder(state_dir, folder, make=make) if folder else open_state_folder(state_dir)
    try:
        fd = _open_plain(state_dir / name, file, flags & ~os.O_TRUNC, parent)
    finally:
        os.close(parent)
    if flags & os.O_TRUNC:
        os.ftruncate(fd, 0)
    return fd


def rename_file(state_dir: Path, folder: str, name: str, new: str) -> None:
    """Give a file in a folder of the state folder another name, instead of what has it. Raises UnsafeFileError, OSError."""
    fd = open_folder(state_dir, folder)
    try:
        os.rename(name, new, src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.close(fd)


def _open_plain(path: Path, name: str, flags: int, folder: int) -> int:
    try:
        fd = os.open(name, flags | _CAREFULLY, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeFileError(f"{path} is a symbolic link, and shardd follows none here: remove it") from None
        if error.errno in (errno.EISDIR, errno.ENXIO, errno.ENODEV) or _is_other_kind(name, folder):
            raise UnsafeFileError(f"{path} is not a plain file: move it away") from None
        if error.errno == errno.EACCES:
            raise UnsafeFileError(
                f"{path} may not be opened by {_user(os.geteuid())}, as whom shardd runs: chown it to that account, chmod 600 it"
            ) from None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        flaw = "is not a plain file: move it away"
    elif found.st_nlink > 1:
        flaw = "has another name somewhere (a hard link): move it away"
    elif found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
        flaw = f"{_whose(found)}: chown it to {_user(os.geteuid())} and chmod 600 it"
    else:
        return fd
    os.close(fd)
    raise UnsafeFileError(f"{path} {flaw}")


def _is_other_kind(name: str, folder: int) -> bool:
    """Whether something else than a plain file is there; a container may not even open a device."""
    try:
        return not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def read_others_file(path: Path, most: int) -> bytes | None:
    """The first `most` bytes of a file that another account may own, such as one of PostgreSQL's; None: there is no file.

    No link is followed, and no pipe waited for. Raises UnsafeFileError, OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _CAREFULLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise UnsafeFileError(f"{path} is not a plain file: move it away") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UnsafeFileError(f"{path} is not a plain file: move it away")
        return os.read(fd, most)
    finally:
        os.close(fd)


def _whose(found: os.stat_result) -> str:
    if found.st_uid != os.geteuid():
        return f"belongs to {_user(found.st_uid)}, and shardd runs as {_user(os.geteuid())}"
    return f"is writable by others (mode {stat.S_IMODE(found.st_mode):o})"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def file_identity(fd: int) -> str:
    """Identifies this file and no copy of it: its inode, with the inode's generation where the file system reports it."""
    try:
        (generation,) = struct.unpack("=q", fcntl.ioctl(fd, _GET_GENERATION, bytes(8)))
    except OSError:
        generation = 0
    return f"{os.fstat(fd).st_ino}.{generation}"


# ---- the state folder's id

_ID: Final = re.compile(rb"[0-9a-f]{32}\n")


def state_id(state_dir: Path) -> str:
    """The random id of this state folder: 32 hexadecimal digits, made at its first start and kept in `state.id`.

    Journals carry it, so that one of another folder is recognized. An unreadable id is replaced; what journals under the old one
    cover is in doubt then. Raises UnsafeFileError, OSError.
    """
    fd = open_file(state_dir, ID_FILE, os.O_RDWR | os.O_CREAT)
    try:
        text = os.pread(fd, 64, 0)
        if _ID.fullmatch(text):
            return text[:-1].decode()
        made = secrets.token_hex(16)
        os.ftruncate(fd, 0)
        os.pwrite(fd, made.encode() + b"\n", 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    return made


# ---- the starts of supervisors on the state folder

_START: Final = re.compile(rb"^([0-9]{12}) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) ([0-9.-]+) *$", re.MULTILINE)
_START_SIZE: Final = 100
"""Bytes of a line: a number, the incarnation, the file's identity, blanks, and the line's end."""


def is_copy(state_dir: Path) -> bool:
    """Whether the last supervisor ran on another folder, of which this one is a copy; a folder that was moved is none.

    A snapshot of the whole disk is not recognised: its files have the same inodes. Raises UnsafeFileError, OSError.
    """
    try:
        fd = open_file(state_dir, STARTS_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        found = _START.findall(os.pread(fd, STARTS_KEPT * _START_SIZE, 0))
        return bool(found) and max(found)[2] != file_identity(fd).encode()
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Start:
    """A start of a supervisor on a state folder."""

    state_dir: Path
    state: str
    """The folder's id."""
    incarnation: UUID


def last_start(state_dir: Path) -> Start | None:
    """The last start on a state folder, perhaps of another account; None: there is none that can be read. Raises OSError."""
    try:
        state = read_others_file(state_dir / ID_FILE, 64)
        starts = read_others_file(state_dir / STARTS_FILE, STARTS_KEPT * _START_SIZE)
    except UnsafeFileError:
        return None
    found = _START.findall(starts or b"")
    if not found or state is None or not _ID.fullmatch(state):
        return None
    return Start(state_dir, state[:-1].decode(), UUID(max(found)[1].decode()))


def record_start(state_dir: Path, incarnation: UUID, *, forget: bool = False) -> Collection[UUID]:
    """Add a start; returns the last starts of supervisors on this folder before it.

    Only for what these had claimed can a journal of this folder prove that it was not sent: after a supervisor ran on a copy of
    the folder, the journals here know nothing of its claims, although they are complete. In a copy of the file, the starts before
    it was copied do not count. The file is a ring of lines, so that a full disk takes another one.

    `forget`: those before it do not count any more, because the folder is older than what they did last.

    Raises UnsafeFileError, OSError.
    """
    fd = open_file(state_dir, STARTS_FILE, os.O_RDWR | os.O_CREAT)
    try:
        found = _START.findall(os.pread(fd, STARTS_KEPT * _START_SIZE, 0))
        number = max((int(digits) for digits, _, _ in found), default=0) + 1
        file = file_identity(fd).encode()
        if forget:
            found = []
        if not found:
            os.pwrite(fd, (b" " * (_START_SIZE - 1) + b"\n") * STARTS_KEPT, 0)
        line = b"%012d %b %b" % (number, str(incarnation).encode(), file)
        os.pwrite(fd, line.ljust(_START_SIZE - 1) + b"\n", number % STARTS_KEPT * _START_SIZE)
        os.fsync(fd)
    finally:
        os.close(fd)
    return frozenset(UUID(text.decode()) for _, text, of in found if of == file)
