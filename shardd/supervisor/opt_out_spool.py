"""Opt-outs that are not on the list yet, in a file of the node's state folder: WhatsApp tells them only once.

It is written before anybody relies on it and emptied when all of it is on the list. What was on its way when a node died is heard
once more after its start, which changes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from shardd.logs import get_logger
from shardd.queue.opt_outs import HeardOptOut

log = get_logger(__name__)

NAME: Final = "opt-outs.jsonl"


class OptOutSpool:
    """One line for each."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME

    def load(self) -> list[HeardOptOut]:
        """What an earlier run of this node left. A line that was cut off is told and left out."""
        try:
            lines = list(filter(None, self._path.read_bytes().splitlines()))
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error(
                "opt-outs of an earlier run cannot be read", action="opt_out", path=str(self._path), error=str(error)
            )
            return []
        heard = []
        for line in lines:
            try:
                heard.append(msgspec.json.decode(line, type=HeardOptOut))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                log.error("an opt-out of an earlier run cannot be read", action="opt_out", error=str(error))
        return heard

    def keep(self, heard: HeardOptOut) -> None:
        """Write one down."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # The line before it may have been cut off.
                os.write(fd, b"\n" + msgspec.json.encode(heard) + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            # It is still on its way to the database.
            log.error("an opt-out cannot be kept on the disk", action="opt_out", path=str(self._path), error=str(error))

    def empty(self) -> None:
        """All of it is on the list."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("old opt-outs cannot be deleted", action="opt_out", path=str(self._path), error=str(error))
