"""What becomes of the messages that one client of the library sent: delivered, read, or unreadable for a device.

A device that cannot decrypt a message asks for it by a retry receipt, which the library answers from its memory if it can
(`recent`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from neonize.proto.Neonize_pb2 import Receipt

from shardd.logs import get_logger
from shardd.transports.whatsapp.clients.recent import RecentMessages

log = get_logger(__name__)

# Neonize.proto, Receipt.ReceiptType. A companion that its owner does not use confirms as inactive, which WhatsApp's apps do not
# show; but it has the message (whatsmeow, receipt.go: SetForceActiveDeliveryReceipts).
_KINDS: Final = {
    Receipt.DELIVERED: "delivered",
    Receipt.INACTIVE: "delivered",
    Receipt.READ: "read",
    Receipt.PLAYED: "read",
}

Report = Callable[[list[str], str, float, int], None]
"""Message ids, kind, POSIX time, and the index of the recipient's device; see `client.Listener.receipt`."""


class Receipts:
    """Of one client. Used in the event loop."""

    def __init__(self, device_id: str, report: Report) -> None:
        self.recent = RecentMessages()
        self._device_id = device_id
        self._report = report
        self._sends = 0
        self._unclear: list[tuple[str, int, float]] = []
        """Retry receipts that came during a send, whose message they may concern: its id is known when it ends."""

    @contextmanager
    def sending(self) -> Iterator[None]:
        """During a send."""
        self._sends += 1
        try:
            yield
        finally:
            self._sends -= 1
            if not self._sends:
                self.recent.sends_ended()
                unclear, self._unclear = self._unclear, []
                for receipt in unclear:
                    self._retry(*receipt)

    def received(self, event: Any) -> None:
        """A receipt event of the library."""
        at = float(event.Timestamp) or time.time()
        source = event.MessageSource
        if event.Type == Receipt.RETRY:
            # Our own other devices get copies, too; whether they can read them says nothing about the recipient.
            for message_id in () if source.IsFromMe else event.MessageIDs:
                self._retry(message_id, source.Sender.Device, at)
        elif kind := _KINDS.get(event.Type):
            self.recent.confirm(event.MessageIDs, sending=self._sends > 0)
            self._report(list(event.MessageIDs), kind, at, 0)

    def not_answered(self, message_id: str, by: int) -> None:
        """The library has the message, and could not encrypt it again."""
        if self.recent.holds(message_id):
            self._report([message_id], "unreadable", time.time(), by)

    def _retry(self, message_id: str, by: int, at: float) -> None:
        """A device asks for a message that it could not decrypt; the library answers from its memory, if it can."""
        if self.recent.holds(message_id):
            log.debug("retry receipt: answered", action="retry_receipt", device=self._device_id, message_id=message_id)
        elif self._sends:
            self._unclear.append((message_id, by, at))
        else:
            self._report([message_id], "unreadable", at, by)
