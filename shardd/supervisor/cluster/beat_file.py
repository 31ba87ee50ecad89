"""The beats of a node (`shardd.queue.beats`) in its state folder, for its next supervisor.

Two lines with checksums in `beat`, written in turn and in place: a torn write costs the later one, and a full disk takes them.
With `journal_fsync`, a beat is on the disk before it is sent, so that a power failure leaves a file that knows the last one. A
line that cannot be written is reported once and does no harm, unless the supervisor dies before one can.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from shardd.checked_lines import checked_line, text_of
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.postgres.servers import Identity
from shardd.queue.beats import BeatMemory
from shardd.state_files import open_file

log = get_logger(__name__)

NAME: Final = "beat"
SIZE: Final = 512
"""Bytes of a line, with blanks at its end: a sector."""


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered; the fields are those of `BeatMemory`."""

    number: int
    """Of the write: the higher one counts."""
    state: str
    """Id of the state folder."""
    beats: int
    at: float
    life: float
    server: tuple[int, int] | None
    beat: UUID | None
    next: UUID | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class BeatFile(BeatMemory):
    """The memory of a node, which survives its process."""

    def __init__(self, state_dir: Path, state: str, *, sync: bool) -> None:
        """`state`: the folder's id; a file of another one counts only as the proof who had its lock.

        `sync`: whether a beat must be on the disk before it is sent. Raises SharddError.
        """
        super().__init__()
        self._path = state_dir / NAME
        self._state = state
        self._sync = sync
        self._failed = False
        try:
            self._fd = open_file(state_dir, NAME, os.O_RDWR | os.O_CREAT)
            data = os.pread(self._fd, 2 * SIZE, 0)
        except OSError as error:
            raise SharddError(f"{self._path}: {error.strerror}") from error
        last = max(filter(None, map(_read, (data[:SIZE], data[SIZE:]))), key=lambda line: line.number, default=None)
        self._number = 0 if last is None else last.number
        if last is None:
            return
        self.beat, self.next = last.beat, last.next
        if last.state == state:
            self.beats, self.at, self.life = last.beats, last.at, last.life
            self.server = None if last.server is None else Identity(*last.server)

    async def intend(self) -> None:
        """Remember the next beat before it is sent."""
        await super().intend()
        await asyncio.to_thread(self._write, sync=self._sync)

    async def acknowledge(self, beats: int, at: float, life: float, server: Identity | None) -> None:
        """Remember the last beat; the next one takes it to the disk."""
        await super().acknowledge(beats, at, life, server)
        self._write(sync=False)

    def _write(self, *, sync: bool) -> None:
        self._number += 1
        line = _Line(
            number=self._number,
            state=self._state,
            beats=self.beats,
            at=self.at,
            life=self.life,
            server=None if self.server is None else (self.server.cluster, self.server.timeline),
            beat=self.beat,
            next=self.next,
        )
        place = self._number % 2 * SIZE
        try:
            os.pwrite(self._fd, checked_line(_encode(line)).ljust(SIZE), place)
            if sync:
                os.fdatasync(self._fd)
        except OSError as error:
            if not self._failed:
                log.error("a beat cannot be remembered", action="lease", file=str(self._path), error=error.strerror)
            self._failed = True
            return
        self._failed = False


def _read(slot: bytes) -> _Line | None:
    text = text_of(slot.split(b"\n", 1)[0])
    try:
        return None if text is None else _decode(text)
    except (ValueError, msgspec.MsgspecError):
        return None
