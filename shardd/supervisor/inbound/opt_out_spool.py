"""Opt-outs that are not in the database yet, in a file of the state folder: WhatsApp delivers them only once.

    1f3a9c07 m 0000000000000002                     the mark, rewritten in place: how many lines follow
    90ab12cd 1 {"type": "opted_out", "device_id": "d1", …}  the first

An opt-out is written before anything relies on it; the file is deleted once all of them are in the database. While some wait for
long, the file is rewritten now and then without those that are stored. After a crash, opt-outs may be stored twice, which changes
nothing. Each line has a checksum, so that a flipped bit never opts out somebody else: the reason for not using sqlite3, which has
none. Whatever can be read of a damaged file is used, and a copy is kept until an operator deletes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from shardd.checked_lines import checked_line, text_of
from shardd.errors import UnsafeFileError
from shardd.ipc import OptedOut
from shardd.logs import get_logger
from shardd.state_files import open_file
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

NAME: Final = "opt-outs.spool"
DAMAGED: Final = "opt-outs.damaged"
"""Copies of damaged spools, appended to each other."""
_MARK_SIZE: Final = 28
SPARE: Final = 1000
"""Lines of stored opt-outs that the file may contain, besides as many as there are waiting ones."""
READ_MOST: Final = 64 * 1024 * 1024
"""Bytes that are read: no spool grows so large, but a damaged one may have any size."""


class OptOutSpool:
    """The file of one node."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._count = 0
        self._error: str | None = None

    def load(self) -> list[OptedOut]:
        """What an earlier run of this node left, as far as readable."""
        try:
            fd = open_file(self._state_dir, NAME, os.O_RDONLY)
            try:
                data = os.pread(fd, min(READ_MOST, os.fstat(fd).st_size), 0)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return []
        except (OSError, UnsafeFileError) as error:
            self._failed("opt-outs of an earlier run cannot be read", error)
            return []
        opt_outs, flaw = read_spool(data)
        self._count = len(opt_outs)
        if flaw is not None:
            log.error("opt-outs of an earlier run may be lost", action="opt_out", flaw=flaw, read=len(opt_outs))
            self._replace(data, opt_outs)
        return opt_outs

    def keep(self, opt_out: OptedOut) -> None:
        """Add one."""
        try:
            fd = open_file(self._state_dir, NAME, os.O_RDWR | os.O_CREAT)
            try:
                size = os.fstat(fd).st_size
                os.pwrite(fd, _line(self._count + 1, opt_out), max(size, _MARK_SIZE))
                os.pwrite(fd, _mark(self._count + 1), 0)
            finally:
                os.close(fd)
        except (OSError, UnsafeFileError) as error:
            # The database still gets it.
            self._failed("an opt-out cannot be written to the disk", error)
        else:
            self._count += 1
            self._error = None

    def empty(self) -> None:
        """All of them are stored: delete the file."""
        try:
            (self._state_dir / NAME).unlink(missing_ok=True)
        except OSError as error:
            self._failed("old opt-outs cannot be deleted", error)
        else:
            self._count = 0

    def shorten(self, waiting: int, opt_outs: Iterable[OptedOut]) -> None:
        """Only these wait (`waiting`: how many): remove the others from the file, once there are many."""
        if self._count <= 2 * waiting + SPARE:
            return
        try:
            self._rewrite(list(opt_outs))
        except (OSError, UnsafeFileError) as error:
            self._failed("old opt-outs cannot be deleted", error)

    def problems(self) -> Iterable[Problem]:
        """Opt-outs that may be lost."""
        if self._error is not None:
            yield Problem(ProblemKind.OPT_OUTS, self._error)
        damaged = self._state_dir / DAMAGED
        if os.path.lexists(damaged):
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"opt-outs from before a crash may be lost, because their file was damaged: open {damaged}, add the recipients "
                "in it (shardd opt-out add), and delete it",
            )

    def _replace(self, data: bytes, opt_outs: list[OptedOut]) -> None:
        """Keep a copy of a damaged file, and start a new one with what could be read."""
        try:
            fd = open_file(self._state_dir, DAMAGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with contextlib.closing(os.fdopen(fd, "ab")) as file:
                file.write(data + b"\n")
            self._rewrite(opt_outs)
        except (OSError, UnsafeFileError) as error:
            self._failed("a damaged file of opt-outs cannot be replaced", error)

    def _rewrite(self, opt_outs: list[OptedOut]) -> None:
        """Write only these. The old file stays until the new one is complete. Raises OSError, UnsafeFileError."""
        fd = open_file(self._state_dir, f"{NAME}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with contextlib.closing(os.fdopen(fd, "wb")) as file:
            file.write(_mark(len(opt_outs)) + b"".join(_line(number, one) for number, one in enumerate(opt_outs, 1)))
            file.flush()
            os.fsync(file.fileno())
        (self._state_dir / f"{NAME}.new").replace(self._state_dir / NAME)
        self._count = len(opt_outs)

    def _failed(self, what: str, error: OSError | UnsafeFileError) -> None:
        path = self._state_dir / NAME
        why = str(error) if isinstance(error, UnsafeFileError) else f"{error.filename or path}: {error.strerror}"
        self._error = f"{what}: {why}"
        log.error(what, action="opt_out", error=why)


def read_spool(data: bytes) -> tuple[list[OptedOut], str | None]:
    """The opt-outs in any bytes, and what is wrong with these; None: they are undamaged."""
    if not data:
        return [], "it is empty"
    first, *lines = data.split(b"\n")
    opt_outs: list[OptedOut] = []
    flaw = None
    for line in filter(None, lines):
        number, one = _read_line(line)
        if one is None:
            flaw = "a line cannot be read"
            continue
        opt_outs.append(one)
        if number != len(opt_outs):
            flaw = flaw or "lines are missing or in another order"
    if lines and lines[-1]:
        flaw = "its last line is cut off"
    marked = _read_mark(first)
    if marked is None:
        flaw = "its mark cannot be read"
    elif marked > len(opt_outs):
        flaw = flaw or "its end is lost"
    return opt_outs, flaw


def _mark(count: int) -> bytes:
    return checked_line(b"m %016x" % count)


def _read_mark(line: bytes) -> int | None:
    try:
        kind, digits = (text_of(line) or b"").split(b" ")
        return int(digits, 16) if kind == b"m" else None
    except ValueError:
        return None


def _line(number: int, opt_out: OptedOut) -> bytes:
    # The line before it may have been cut off.
    return b"\n" + checked_line(b"%d %b" % (number, msgspec.json.encode(opt_out)))


def _read_line(line: bytes) -> tuple[int, OptedOut | None]:
    text = text_of(line)
    try:
        digits, fields = (text or b"").split(b" ", 1)
        return int(digits), msgspec.json.decode(fields, type=OptedOut)
    except (ValueError, msgspec.MsgspecError):
        return 0, None
