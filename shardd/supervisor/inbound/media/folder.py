"""The files of one node: below `inbox.media_dir`, in a folder with the node's name.

A file is written under another name, brought to the disk and renamed, so a name that is complete has all its bytes. Names are
random, and end as the type of the file does, of which only well-known ones count: nothing of a name comes from the sender. Other
accounts of the folder's group may read the files (0640).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from shardd.errors import UnsafeFileError
from shardd.incoming_spool import SPARE
from shardd.state_files import open_folder, open_state_folder

DEFAULT: Final = "media"
"""The folder in the state folder, if the config names none."""
_PART: Final = re.compile(r"\.part-[0-9a-f]{32}")
_FILE: Final = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{2,4}")
_SUFFIXES: Final = MappingProxyType(
    {
        "application/msword": "doc",
        "application/pdf": "pdf",
        "application/vnd.ms-excel": "xls",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/zip": "zip",
        "audio/aac": "aac",
        "audio/amr": "amr",
        "audio/mp4": "m4a",
        "audio/mpeg": "mp3",
        "audio/ogg": "ogg",
        "image/gif": "gif",
        "image/jpeg": "jpg",
        "image/png": "png",
        "image/webp": "webp",
        "text/csv": "csv",
        "text/plain": "txt",
        "video/3gpp": "3gp",
        "video/mp4": "mp4",
        "video/quicktime": "mov",
    }
)


class MediaFolder:
    """For threads: every call may wait for the disk. Raises OSError and UnsafeFileError, whose texts name the folder."""

    def __init__(self, state_dir: Path, media_dir: Path | None, node: str) -> None:
        """`media_dir`: of the config."""
        self._state_dir = None if media_dir else state_dir
        self._root = media_dir or state_dir / DEFAULT
        self._node = node

    @property
    def path(self) -> Path:
        """Where the files are."""
        return self._root / self._node

    def begin(self, size: int) -> NewFile:
        """A new file of up to `size` bytes."""
        folder = self._open()
        name = f".part-{secrets.token_hex(16)}"
        try:
            _require_room(folder, size)
            fd = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=folder
            )
        except BaseException:
            os.close(folder)
            raise
        return NewFile(self.path, folder, name, fd)

    def probe(self) -> int:
        """Write a file and delete it; returns how many bytes of the disk files may take."""
        new = self.begin(1)
        try:
            new.write(b"x")
            return _free(self.path)
        finally:
            new.abort()

    def used(self) -> int:
        """Bytes of all files."""
        try:
            with os.scandir(self.path) as found:
                return sum(one.stat(follow_symlinks=False).st_size for one in found if _FILE.fullmatch(one.name))
        except FileNotFoundError:
            return 0

    def paths(self) -> list[str]:
        """The complete files."""
        return [str(self.path / name) for name in self._names() if _FILE.fullmatch(name)]

    def delete_parts(self) -> None:
        """What an earlier process left incomplete."""
        for name in self._names():
            if _PART.fullmatch(name):
                (self.path / name).unlink(missing_ok=True)

    def delete(self, paths: Collection[str]) -> int:
        """Delete these files, if they are of this node; returns the bytes. One that is gone is fine."""
        freed = 0
        for path in map(Path, paths):
            # The folder may have been another one when they were stored.
            if _FILE.fullmatch(path.name) and path.parent.name == self._node:
                with suppress(FileNotFoundError, NotADirectoryError):
                    size = path.lstat().st_size
                    path.unlink()
                    freed += size if path.parent == self.path else 0
        return freed

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return []

    def _open(self) -> int:
        if self._state_dir is not None:
            os.close(open_folder(self._state_dir, DEFAULT, make=True))
        try:
            parent = open_state_folder(self._root, "inbox.media_dir")
        except FileNotFoundError:
            raise UnsafeFileError(
                f"inbox.media_dir {self._root} does not exist: create it, for the account that shardd runs as"
            ) from None
        except NotADirectoryError:
            raise UnsafeFileError(
                f"inbox.media_dir {self._root} is not a folder: move it away, or name another"
            ) from None
        try:
            try:
                os.mkdir(self._node, 0o750, dir_fd=parent)
            except FileExistsError:
                pass
            else:
                os.chmod(self._node, 0o750, dir_fd=parent)  # noqa: S103  # whatever the umask, programs of the group may read
            folder = os.open(self._node, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UnsafeFileError(f"{self.path} is not a folder: move it away") from None
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            os.close(parent)
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
            os.close(folder)
            raise UnsafeFileError(f"{self.path} belongs to another account, or everybody may write to it: move it away")
        return folder


class NewFile:
    """A file that is being written: ends with `finish` or `abort`."""

    def __init__(self, path: Path, folder: int, name: str, fd: int) -> None:
        self._path = path
        self._folder = folder
        self._name = name
        self._fd = fd
        self.size = 0

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self.size += len(data)
        # A write to a disk that is nearly full may be short.
        while data:
            data = data[os.write(self._fd, data) :]

    def finish(self, mime_type: str | None) -> str:
        """Bring it to the disk, under its name; returns its path."""
        suffix = _SUFFIXES.get((mime_type or "").partition(";")[0].strip().lower(), "bin")
        name = f"{secrets.token_hex(16)}.{suffix}"
        os.fchmod(self._fd, 0o640)  # whatever the umask
        os.fsync(self._fd)
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._name = name
        os.fsync(self._folder)
        self._close()
        return str(self._path / name)

    def abort(self) -> None:
        """Delete it, unless it is finished. Raises nothing: what stays is deleted by the next start."""
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)
        os.close(self._folder)


def _free(place: int | Path) -> int:
    """The journals may be on the same disk: whoever writes to a device must not be able to stop the sending."""
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize - SPARE


def _require_room(folder: int, size: int) -> None:
    if _free(folder) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
