"""Incoming messages that are not in the database yet: a file for each in the state folder.

A platform delivers a message once, so it is written to the disk before anything else happens to it, and its file is deleted once
everything that it causes is stored. Workers write, in the threads in which they receive; the supervisor writes in a thread of its
own, reads and deletes. A file is one line with a checksum, so a damaged one costs only itself, and a flipped bit never opts out
somebody else.

A message whose file is to be downloaded stays here under another name until that is done (`hold`): the key is in no other place.

Other messages than opt-outs are written only while the disk has space to spare: the journals are on the same one, and whoever
writes to a device must not be able to stop the sending.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shardd.checked_lines import checked_line, text_of
from shardd.errors import UnsafeFileError
from shardd.incoming import Incoming
from shardd.state_files import open_file, open_folder

FOLDER: Final = "inbox"
DAMAGED: Final = "damaged"
"""A file that cannot be read, or that the database refuses, gets this ending, and stays until an operator deletes it."""
SPARE: Final = 64 * 1024 * 1024
"""Bytes of the disk that are left free."""
MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes that are read of a file; a message has at most about 1 MB."""
UNFINISHED: Final = 60.0
"""Seconds after which a file without a valid checksum is damaged; a younger one may be being written."""
OPT_OUT: Final = ".stop"
"""Ending of the file of an opt-out, which must be in force before it is stored."""
HELD: Final = ".media"
"""Ending of the file of a message that is stored, and whose own file is to be downloaded."""
MANY: Final = 16
"""More messages than this are synced together, with whatever else that file system has to write."""
_NAME: Final = re.compile(rf"[0-9]{{20}}-[0-9]+-[0-9]+({re.escape(OPT_OUT)})?")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Incoming)
_numbers = itertools.count()


class IncomingSpool:
    """The files of one node."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._error: str | None = None

    def keep(self, message: Incoming) -> str:
        """Write one, also to the disk itself; returns the name of its file. For any thread. Raises OSError, UnsafeFileError."""
        return self.keep_all([message])[0]

    def keep_all(self, messages: Sequence[Incoming]) -> list[str]:
        """Write these, as `keep` does. Raises OSError, UnsafeFileError: then those that can be written are there.

        A part of a history has thousands, and the thread that writes them has the next opt-out to write, too.
        """
        together = len(messages) > MANY
        names = []
        error: OSError | UnsafeFileError | None = None
        for message in messages:
            try:
                names.append(self._write_file(message, sync=not together))
            except (OSError, UnsafeFileError) as failed:
                error = failed
        try:
            if names:
                self._sync_folder(together=together)
        except (OSError, UnsafeFileError) as failed:
            error = failed
        if error is not None:
            self._error = self._describe(error)
            raise error
        if not all(
            message.opt_out for message in messages
        ):  # an opt-out is also written while there is no room for others
            self._error = None
        return names

    @property
    def error(self) -> str | None:
        """Why the last message could not be written, as far as known."""
        return self._error

    def check(self) -> str | None:
        """Why the last message could not be written, if that is still so; None: the next one can be."""
        if self._error is not None:
            self._error = self.probe()
        return self._error

    def probe(self) -> str | None:
        """Why a message could not be written now; None: it could be."""
        name = f"probe-{os.getpid()}"
        try:
            self.delete(name)  # an earlier process with this pid may have been killed here
            self.delete(self._write_file(_PROBE, name))
        except (OSError, UnsafeFileError) as error:
            return self._describe(error)
        return None

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._state_dir / FOLDER

    def _write_file(self, message: Incoming, name: str | None = None, *, sync: bool = True) -> str:
        name = name or f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}{OPT_OUT if message.opt_out else ''}"
        path = f"{FOLDER}/{name}"
        fd = open_file(self._state_dir, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            if not message.opt_out:
                _require_room(fd)
            _write(fd, checked_line(_encoder.encode(message)))
            if sync:
                os.fsync(fd)
        except OSError:
            (self._state_dir / path).unlink()
            raise
        finally:
            os.close(fd)
        return name

    def _sync_folder(self, *, together: bool) -> None:
        """The names of files are in the folder, which is a file of its own. `together`: with the files, which are not synced."""
        folder = open_folder(self._state_dir, FOLDER)
        try:
            if together:
                _sync_file_system(folder)
            else:
                os.fsync(folder)
        finally:
            os.close(folder)

    def names(self) -> list[str]:
        """The files, oldest first. Raises OSError."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> Incoming | None:
        """A message; None: its file is gone, being written, or was damaged and has been set aside. Raises OSError."""
        try:
            fd = open_file(self._state_dir, f"{FOLDER}/{name}", os.O_RDONLY)
        except FileNotFoundError:
            return None
        except UnsafeFileError:
            self.set_aside(name)
            return None
        try:
            data = os.read(fd, MAX_FILE)
            age = time.time() - os.fstat(fd).st_mtime
        finally:
            os.close(fd)
        try:
            return _decoder.decode(text_of(data.removesuffix(b"\n")) or b"")
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            if data.endswith(b"\n") or age > UNFINISHED:
                self.set_aside(name)
            return None

    def hold(self, name: str) -> str:
        """A message is stored, except for the file that it describes; returns the new name. Raises OSError."""
        held = name + HELD
        (self.folder / name).rename(self.folder / held)
        return held

    def held(self) -> list[str]:
        """The names of messages that wait for their files, oldest first. Raises OSError."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name.endswith(HELD) and _NAME.fullmatch(name.removesuffix(HELD)))

    def delete(self, name: str) -> None:
        """Everything that it causes is stored. Raises OSError."""
        (self.folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        """Keep a file for an operator. Raises OSError."""
        path = self.folder / name
        path.rename(path.with_name(f"{name}.{DAMAGED}"))

    def _describe(self, error: OSError | UnsafeFileError) -> str:
        path = self.folder
        return str(error) if isinstance(error, UnsafeFileError) else f"{error.filename or path}: {error.strerror}"

    def damaged(self) -> Iterator[Path]:
        """The files that were set aside."""
        return self.folder.glob(f"*.{DAMAGED}")


_PROBE: Final = Incoming(device_id="", message_id="", addresses=(), at=0.0)


def _require_room(fd: int) -> None:
    disk = os.fstatvfs(fd)
    if disk.f_bavail * disk.f_frsize < SPARE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_file_system(fd: int) -> None:
    """syncfs(2), which Python does not have: everything on the file system of a descriptor; reports errors since Linux 5.8."""
    if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(fd: int, data: bytes) -> None:
    # A write to a disk that is nearly full may be short.
    while data:
        data = data[os.write(fd, data) :]
