"""What a worker knows about the people it writes to: where WhatsApp lists them, who opted out, who is not a stranger.

All of it is a bounded memory of this process. The database's list of opt-outs decides; what a device hears takes a moment to get
there, and a job may be on its way already, so each worker respects what it heard from that moment on.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Container
from threading import Lock
from typing import Final

import msgspec

from shardd.bounded import remember
from shardd.errors import DatabaseError, OptedOutError
from shardd.incoming import Incoming
from shardd.ipc import JobSpec
from shardd.opt_out_words import OptOutWords
from shardd.persons import USER_SERVER, recipient_at
from shardd.transports.whatsapp.messages.failures import RestrictionReport
from shardd.transports.whatsapp.sessions.store import SessionStore

ABSENT_FOR: Final = 24 * 3600.0
PRESENT_FOR: Final = 7 * 24 * 3600.0
"""Seconds that an answer about a number is trusted: people join more often than numbers move."""
MAX_KNOWN: Final = 100_000


class Directory:
    """What WhatsApp answered about numbers. The answer is the same for every device.

    WhatsApp may list an account under another number than people dial (mobile numbers in Brazil, Mexico and Argentina).
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        self._lock = Lock()
        """`numbers_of` is called in threads of the library."""

    def lookup(self, number: str) -> tuple[bool, str | None]:
        """(known, JID): (True, None) is a number without an account, (False, None) one that is not known."""
        found = self._known.get(number)
        if found is None or found[1] < time.monotonic():
            return False, None
        return True, found[0]

    def numbers_of(self, jids: Container[str]) -> list[str]:
        """The numbers under which these JIDs were found. Scans all that is known."""
        with self._lock:
            return [number for number, (jid, _) in self._known.items() if jid is not None and jid in jids]

    def learn(self, number: str, jid: str | None) -> None:
        """`jid` None: there is no account."""
        until = time.monotonic() + (ABSENT_FOR if jid is None else PRESENT_FOR)
        with self._lock:
            remember(self._known, number, (jid, until), MAX_KNOWN)


class OptOuts:
    """Who opted out by writing to a device of this worker."""

    def __init__(self, words: OptOutWords, directory: Directory) -> None:
        """`directory`: other numbers by which a person may be known."""
        self._words = words
        self._directory = directory
        self._heard: OrderedDict[str, int] = OrderedDict()
        """The number of the message (`Events.incoming`), by address."""

    def marked(self, message: Incoming) -> Incoming:
        """The message; if it is an opt-out or takes one back, marked so, with all addresses of its sender that are known.

        For any thread.
        """
        opt_out = message.can_opt_out and self._words.ask_to_stop(message.text)
        take_back = message.can_opt_out and self._words.ask_to_start(message.text)
        if not opt_out and not take_back:
            return message
        jids = [one if "@" in one else f"{one.removeprefix('+')}@{USER_SERVER}" for one in message.addresses]
        numbers = [f"+{number}" for number in self._directory.numbers_of(jids)]
        hidden = [one for one in message.addresses if "@" in one]
        known = dict.fromkeys([*(one for one in message.addresses if "@" not in one), *numbers, *hidden])
        return msgspec.structs.replace(message, opt_out=opt_out, take_back=take_back, addresses=tuple(known))

    def heard(self, message: Incoming, number: int) -> None:
        """A message that `marked` returned, with its number: from now on, an opt-out is respected."""
        if message.opt_out:
            for address in message.addresses:
                remember(self._heard, recipient_at(address).address, number, MAX_KNOWN)

    def check(self, job: JobSpec, *jids: str) -> None:
        """Raises OptedOutError when the job must not go to one of these JIDs or addresses.

        That is for a job that was already on its way here: of later ones, the supervisor knows better, because the person may
        have taken the opt-out back.
        """
        known = job.heard
        if job.heeds_opt_outs and any(self._heard.get(recipient_at(jid).address, 0) > known for jid in jids):
            raise OptedOutError("the recipient opted out")


class Restrictions:
    """Devices that WhatsApp keeps from writing to new contacts (463), and to whom they may write meanwhile.

    WhatsApp may not announce the restriction or its end, and every refused message may prolong it. So after the first refusal
    a device writes only to known contacts until it is worth another try: those it has written to since this process started, and
    those for whom the session store has a token.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._until: dict[str, float] = {}
        self._known: set[str] = set()
        """Devices about which this process knows better than the database."""
        self._written: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, device_id: str, until: float | None) -> None:
        """A device is used, perhaps for the first time in this process; `until`: of a restriction, as the database knows it."""
        if device_id not in self._known:
            self._known.add(device_id)
            if until is not None:
                self._until[device_id] = until

    def refused(self, device_id: str, until: float) -> None:
        """WhatsApp refused a message to a stranger; `until`: POSIX seconds."""
        self._until[device_id] = until

    def is_restricted(self, device_id: str) -> bool:
        """Whether it is, as far as this process knows."""
        return device_id in self._until

    def reported(self, device_id: str, report: RestrictionReport) -> float | None:
        """WhatsApp reported the restriction or its end; returns when it ends, in POSIX seconds, or None if that is not known."""
        if not report.active:
            self._until.pop(device_id, None)
            return time.time()
        if report.until is not None:
            self._until[device_id] = report.until
        return report.until

    def accepted(self, device_id: str, number: str) -> None:
        """WhatsApp took a message to this number: it is a known contact now."""
        remember(self._written, (device_id, number), None, MAX_KNOWN)

    def forget(self, device_id: str) -> None:
        """The device was closed, perhaps for another session: from now on the database knows better."""
        self._until.pop(device_id, None)
        self._known.discard(device_id)

    async def is_contact(self, device_id: str, session: str, number: str) -> bool:
        """Whether the account knows this number, to which WhatsApp just refused a message (463).

        Only the store says so: one message to somebody who never replied makes them no contact. If the store does not answer, or
        the wait is cancelled, the answer is no.
        """
        self._written.pop((device_id, number), None)
        try:
            return await self._store.knows_recipient(session, number)
        except (DatabaseError, asyncio.CancelledError):
            # The refusal is known; a late answer of the store must not make it doubtful.
            return False

    async def blocked_until(self, device_id: str, session: str, number: str) -> float | None:
        """Until when (POSIX seconds) this device must not write to this number, or None. Raises DatabaseError."""
        until = self._until.get(device_id)
        if until is None or (device_id, number) in self._written:
            return None
        if until <= time.time():
            del self._until[device_id]
            return None
        return None if await self._store.knows_recipient(session, number) else until
