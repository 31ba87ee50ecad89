"""Devices that WhatsApp keeps from writing to new contacts (463), and to whom they may write meanwhile.

WhatsApp neither announces the restriction nor says when it ends, and every refused message may prolong it. So after the first
refusal a device writes only to those who are surely no strangers, until it is worth another try: whom it has written to since
this process began, and whom the session store knows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from shardd.transports.whatsapp.sessions.store import SessionStore

MAX_KNOWN: Final = 200_000


class Restrictions:
    """What one worker knows about its restricted devices."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._until: dict[str, float] = {}
        self._written: OrderedDict[tuple[str, str], None] = OrderedDict()

    def refused(self, device_id: str, until: float) -> None:
        """WhatsApp refused a message to a stranger; `until`: POSIX seconds."""
        self._until[device_id] = until

    def accepted(self, device_id: str, number: str) -> None:
        """WhatsApp took a message to this number: it is a stranger no more."""
        self._written[device_id, number] = None
        self._written.move_to_end((device_id, number))
        if len(self._written) > MAX_KNOWN:
            self._written.popitem(last=False)

    def forget(self, device_id: str) -> None:
        """The device begins anew."""
        self._until.pop(device_id, None)

    async def holds_back(self, device_id: str, session: str, number: str) -> float | None:
        """Until when (POSIX seconds) this device must not write to this number, or None. Raises DatabaseError."""
        until = self._until.get(device_id)
        if until is None or (device_id, number) in self._written:
            return None
        if until <= time.time():
            del self._until[device_id]
            return None
        return None if await self._store.knows_recipient(session, number) else until
