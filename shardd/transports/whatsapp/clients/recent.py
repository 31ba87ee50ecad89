"""The messages that one client of the library can still encrypt again, which of them are delivered, and whether it does so.

The library keeps the last 256 messages of a client in its memory, and answers retry receipts from there (whatsmeow, retry.go:
`recentMessagesSize`); it exports no other store, and a new client begins with none. This counts in the same way, so that it is
known whether a retry receipt is answered. If the library has the message, but cannot encrypt it, it says so in its log.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from shardd.persons import GROUP_SERVER

KEPT: Final = 256
"""Messages that the library keeps."""
_UNANSWERED: Final = re.compile(
    r"Failed to handle retry receipt for (?P<chat>\S+)/(?P<message>[^/\s]+) from (?P<sender>\S+): .*", re.DOTALL
)
"""whatsmeow, retry.go: `tryHandleRetryReceipt`."""
_JID: Final = re.compile(r"(?P<user>[^@:.]+)(\.\d+)?(:(?P<device>\d+))?@(?P<server>.+)")


def unanswered(line: str) -> tuple[str, int] | None:
    """A line of the library's log that says that a retry receipt of a recipient was not answered: (message id, device index).

    None: another line, or one about a device of our own account.
    """
    if (match := _UNANSWERED.fullmatch(line)) is None or (sender := _JID.fullmatch(match["sender"])) is None:
        return None
    chat = match["chat"]
    if not chat.endswith(f"@{GROUP_SERVER}") and re.split(r"[@:.]", chat)[0] != sender["user"]:
        return None
    return match["message"], int(sender["device"] or 0)


class RecentMessages:
    """Of one client; times are the caller's clock."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        """By id: when it was sent, and whether a group got it."""
        self._undelivered: OrderedDict[str, None] = OrderedDict()
        self._early: set[str] = set()
        """Confirmed before it was known that they were sent: a phone may be faster than WhatsApp's answer."""

    def add(self, message_id: str, now: float, *, group: bool) -> None:
        """It was sent."""
        self._sent[message_id] = (now, group)
        if group or message_id not in self._early:
            self._undelivered[message_id] = None
        if len(self._sent) > KEPT:
            oldest, _ = self._sent.popitem(last=False)
            self._undelivered.pop(oldest, None)

    def confirm(self, message_ids: Iterable[str], *, sending: bool = False) -> None:
        """A device of the recipient has them. Members of a group confirm one by one, so that its messages stay undelivered.

        `sending`: a message is being sent, and may be one of these.
        """
        for message_id in message_ids:
            if message_id not in self._sent:
                if sending:
                    self._early.add(message_id)
            elif not self._sent[message_id][1]:
                self._undelivered.pop(message_id, None)

    def sends_ended(self) -> None:
        """No message is being sent."""
        self._early.clear()

    def holds(self, message_id: str) -> bool:
        """Whether the library can encrypt it again."""
        return message_id in self._sent

    def undelivered(self) -> tuple[int, float]:
        """How many are not confirmed, and when the last of them was sent."""
        if not self._undelivered:
            return 0, 0.0
        return len(self._undelivered), self._sent[next(reversed(self._undelivered))][0]
