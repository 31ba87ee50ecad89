"""Who is told what a client learns outside of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shardd.transports.whatsapp.failures import Trouble
from shardd.transports.whatsapp.incoming import Incoming

if TYPE_CHECKING:  # a client has a listener
    from shardd.transports.whatsapp.client import Client


class Listener(Protocol):
    """Who is told what a client learns."""

    def ended(self, client: Client, trouble: Trouble) -> None:
        """The client is of no use any more, and somebody has to close it. Said once, after a successful `open`."""

    def receipt(self, client: Client, message_ids: list[str], kind: str, at: float) -> None:
        """A message was `delivered` or `read`; `at` in POSIX seconds."""

    def message(self, client: Client, incoming: Incoming) -> None:
        """Somebody wrote."""
