"""Who told a device of this worker to stop, from that moment on.

The list of opt-outs is the database's; what is heard takes a moment to get there, and a job may be on its way already. So the
worker keeps to what it heard by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from shardd.errors import OptedOutError
from shardd.ipc import JobSpec
from shardd.opt_out_words import OptOutWords
from shardd.transports.base import Events
from shardd.transports.whatsapp.messages.incoming import Incoming
from shardd.transports.whatsapp.messages.recipients import USER_SERVER, Directory

MAX_KNOWN: Final = 100_000


class OptOuts:
    """What one worker heard since it began."""

    def __init__(self, words: Iterable[str], directory: Directory, events: Events) -> None:
        """`words`: by which people opt out; `directory`: by which numbers else a person may be known."""
        self._words = OptOutWords(words)
        self._directory = directory
        self._events = events
        self._heard: OrderedDict[str, None] = OrderedDict()

    def heard(self, device_id: str, incoming: Incoming) -> None:
        """Somebody wrote to a device. Only an opt-out goes further than this."""
        if not self._words.ask_to_stop(incoming.text):
            return
        jids = [f"{incoming.number}@{USER_SERVER}"] if incoming.number else []
        jids += [incoming.hidden] if incoming.hidden else []
        # Mobile numbers of some countries are dialled otherwise than WhatsApp lists them.
        numbers = [incoming.number] if incoming.number else []
        numbers += self._directory.numbers_of(jids)
        recipients = dict.fromkeys([*(f"+{number}" for number in numbers), *jids[bool(incoming.number) :]])
        for recipient in recipients:
            self._remember(recipient.removeprefix("+"))
        self._events.opted_out(device_id, list(recipients), incoming.text, incoming.at)

    def respect(self, job: JobSpec, *jids: str) -> None:
        """Raises OptedOutError when the job must not go to somebody with one of these JIDs."""
        if job.heeds_opt_outs and any(jid.removesuffix(f"@{USER_SERVER}") in self._heard for jid in jids):
            raise OptedOutError("the recipient opted out")

    def _remember(self, address: str) -> None:
        self._heard[address] = None
        self._heard.move_to_end(address)
        if len(self._heard) > MAX_KNOWN:
            self._heard.popitem(last=False)
