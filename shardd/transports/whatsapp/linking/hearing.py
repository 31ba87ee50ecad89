"""What people write to a device while a child process has its connection: while it is paired, and while it is unlinked.

WhatsApp delivers a message once, so it is written to the spool of this host, whose daemon stores it, now or at its next start.
Without a spool that can be written to, the child does not connect.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardd.errors import SharddError
from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.opt_out_words import OptOutWords
from shardd.transports.whatsapp.messages.arrivals import Arrivals
from shardd.transports.whatsapp.messages.recipients import Directory, OptOuts

NOT_KEPT: Final = "what people write to the device meanwhile could not be kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """What becomes of these messages."""

    device_id: str
    state_dir: str
    """Of the spool."""
    opt_out_words: Sequence[str] = ()
    take_back_words: Sequence[str] = ()
    include: Sequence[str] | None = None
    """See `inbox.include` of the config; None: only opt-outs are kept."""
    media: bool = False
    """Whether files are to be downloaded."""


class Losses:
    """The events of `Arrivals`: a message that could not be written, or not be read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def incoming(self, name: str | None, message: Incoming) -> int:
        """Kept, if it has a name."""
        if name is None:
            what = "an opt-out" if message.opt_out else "a message"
            self.texts.append(f"{what} from {' '.join(message.addresses)} could not be written to the disk")
        return 0

    def defect(self, text: str) -> None:
        """It could not be read."""
        self.texts.append(text)

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        """Not of interest."""

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        """Not of interest."""

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        """Not of interest."""

    def login_answered(self, device_id: str, *, outdated: bool) -> None:
        """Not of interest."""

    def clients_changed(self, opened: list[str], closed: list[str], openings: int) -> None:
        """Not of interest."""


def open_arrivals(hearing: Hearing, losses: Losses) -> Arrivals:
    """Raises SharddError when the spool cannot be written to: then nothing may be received."""
    state_dir = Path(hearing.state_dir)
    try:
        _become_owner(state_dir)
    except OSError as error:
        text = (
            f"{NOT_KEPT}: state_dir {state_dir}: {error.strerror}; run this where shardd runs, once it has been started"
        )
        raise SharddError(text) from None
    spool = IncomingSpool(state_dir)
    if (flaw := spool.probe()) is not None:
        hint = "; run this as root, or as the account of shardd" if os.strerror(errno.EACCES) in flaw else ""
        raise SharddError(f"{NOT_KEPT}: {flaw}{hint}")
    words = OptOutWords(hearing.opt_out_words, hearing.take_back_words)
    return Arrivals(OptOuts(words, Directory()), spool, hearing.include, losses, media=hearing.media)


def _become_owner(state_dir: Path) -> None:
    """Run on as the account of the daemon, which accepts only its own files. Only root can. Raises OSError."""
    owner = state_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
