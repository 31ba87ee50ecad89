"""Opt-outs that are not on the list yet, in a file of the node's state folder: WhatsApp tells them only once.

    1f3a9c07 m 0000000000000002                     the mark, rewritten in place: how many lines follow
    90ab12cd 1 {"device_id": "d1", "recipients": …}  the first

It is written before anybody relies on it and deleted when all of it is on the list. While a few wait for long it is rewritten now
and then, without those that are on the list. What was on its way when a node died is heard
once more after its start, which changes nothing. Each line has its checksum, so that a flipped bit never opts out somebody else.
Of a damaged file what can be read is heard, and a copy stays for a person to look at, who deletes it.
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
from shardd.logs import get_logger
from shardd.queue.opt_outs import HeardOptOut
from shardd.state_files import open_file
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

NAME: Final = "opt-outs.spool"
DAMAGED: Final = "opt-outs.damaged"
"""Copies of damaged spools, one behind the other."""
_MARK_SIZE: Final = 28
SPARE: Final = 1000
"""Lines of what is on the list already that may stand in the file, besides as many as are not."""
READ_MOST: Final = 64 * 1024 * 1024
"""Bytes that are looked at: no spool grows so large, and a damaged one may claim any size."""


class OptOutSpool:
    """One line for each."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._count = 0
        self._trouble: str | None = None

    def load(self) -> list[HeardOptOut]:
        """What an earlier run of this node left, as far as it can be read."""
        try:
            fd = open_file(self._state_dir, NAME, os.O_RDONLY)
            try:
                data = os.pread(fd, min(READ_MOST, os.fstat(fd).st_size), 0)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return []
        except (OSError, UnsafeFileError) as error:
            self._cannot("opt-outs of an earlier run cannot be read", error)
            return []
        heard, flaw = read_spool(data)
        self._count = len(heard)
        if flaw is not None:
            log.error("opt-outs of an earlier run may be lost", action="opt_out", flaw=flaw, read=len(heard))
            self._replace(data, heard)
        return heard

    def keep(self, heard: HeardOptOut) -> None:
        """Write one down."""
        try:
            fd = open_file(self._state_dir, NAME, os.O_RDWR | os.O_CREAT)
            try:
                size = os.fstat(fd).st_size
                os.pwrite(fd, _line(self._count + 1, heard), max(size, _MARK_SIZE))
                os.pwrite(fd, _mark(self._count + 1), 0)
            finally:
                os.close(fd)
        except (OSError, UnsafeFileError) as error:
            # It is still on its way to the database.
            self._cannot("an opt-out cannot be kept on the disk", error)
        else:
            self._count += 1
            self._trouble = None

    def empty(self) -> None:
        """All of it is on the list."""
        try:
            (self._state_dir / NAME).unlink(missing_ok=True)
        except OSError as error:
            self._cannot("old opt-outs cannot be deleted", error)
        else:
            self._count = 0

    def shorten(self, waiting: int, heard: Iterable[HeardOptOut]) -> None:
        """So many wait, and these; the others are on the list. They leave the file once they are many."""
        if self._count <= 2 * waiting + SPARE:
            return
        try:
            self._rewrite(list(heard))
        except (OSError, UnsafeFileError) as error:
            self._cannot("old opt-outs cannot be deleted", error)

    def problems(self) -> Iterable[Problem]:
        """Opt-outs that may be lost."""
        if self._trouble is not None:
            yield Problem(ProblemKind.OPT_OUTS, self._trouble)
        damaged = self._state_dir / DAMAGED
        if os.path.lexists(damaged):
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"opt-outs that were heard before a crash may be lost, because their file was damaged: look into {damaged}, add "
                "whom you find there (shardd opt-out add), and delete it",
            )

    def _replace(self, data: bytes, heard: list[HeardOptOut]) -> None:
        """Keep a damaged file for a person, and begin a new one with what could be read."""
        try:
            fd = open_file(self._state_dir, DAMAGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with contextlib.closing(os.fdopen(fd, "ab")) as file:
                file.write(data + b"\n")
            self._rewrite(heard)
        except (OSError, UnsafeFileError) as error:
            self._cannot("a damaged file of opt-outs cannot be replaced", error)

    def _rewrite(self, heard: list[HeardOptOut]) -> None:
        """Nothing but these. The old file stays until the new one is whole. Raises OSError, UnsafeFileError."""
        fd = open_file(self._state_dir, f"{NAME}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with contextlib.closing(os.fdopen(fd, "wb")) as file:
            file.write(_mark(len(heard)) + b"".join(_line(number, one) for number, one in enumerate(heard, 1)))
            file.flush()
            os.fsync(file.fileno())
        (self._state_dir / f"{NAME}.new").replace(self._state_dir / NAME)
        self._count = len(heard)

    def _cannot(self, what: str, error: OSError | UnsafeFileError) -> None:
        path = self._state_dir / NAME
        why = str(error) if isinstance(error, UnsafeFileError) else f"{error.filename or path}: {error.strerror}"
        self._trouble = f"{what}: {why}"
        log.error(what, action="opt_out", error=why)


def read_spool(data: bytes) -> tuple[list[HeardOptOut], str | None]:
    """What these bytes say, whatever they are, and what is wrong with them, if anything is."""
    if not data:
        return [], "it is empty"
    first, *lines = data.split(b"\n")
    heard: list[HeardOptOut] = []
    flaw = None
    for line in filter(None, lines):
        number, one = _read_line(line)
        if one is None:
            flaw = "a line cannot be read"
            continue
        heard.append(one)
        if number != len(heard):
            flaw = flaw or "lines are missing, or stand in another order"
    if lines and lines[-1]:
        flaw = "its last line is cut off"
    marked = _read_mark(first)
    if marked is None:
        flaw = "its mark cannot be read"
    elif marked > len(heard):
        flaw = flaw or "its end is lost"
    return heard, flaw


def _mark(count: int) -> bytes:
    return checked_line(b"m %016x" % count)


def _read_mark(line: bytes) -> int | None:
    try:
        kind, digits = (text_of(line) or b"").split(b" ")
        return int(digits, 16) if kind == b"m" else None
    except ValueError:
        return None


def _line(number: int, heard: HeardOptOut) -> bytes:
    # The line before it may have been cut off.
    return b"\n" + checked_line(b"%d %b" % (number, msgspec.json.encode(heard)))


def _read_line(line: bytes) -> tuple[int, HeardOptOut | None]:
    text = text_of(line)
    try:
        digits, said = (text or b"").split(b" ", 1)
        return int(digits), msgspec.json.decode(said, type=HeardOptOut)
    except (ValueError, msgspec.MsgspecError):
        return 0, None
