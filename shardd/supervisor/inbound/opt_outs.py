"""Who wants no more messages: what devices hear on its way to the list, and a last look at jobs that are about to leave.

An opt-out is written at once. When the database is away it is kept, on the disk too, and tried again: until then this node's
workers remember by themselves whom they heard.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import phonenumbers

from shardd import ipc
from shardd.config import Config
from shardd.errors import DatabaseError, PermanentError
from shardd.logs import get_logger
from shardd.opt_out_words import OptOutWords
from shardd.queue.cycle import ClaimedJob
from shardd.queue.opt_outs import HeardOptOut, OptOuts, was_refused
from shardd.supervisor.inbound.opt_out_spool import OptOutSpool
from shardd.supervisor.services import Service
from shardd.transports.whatsapp.recipients import parse_recipient

log = get_logger(__name__)

RETRY: Final = 1.0
"""Seconds between tries while the database does not answer."""
MOST: Final = 100_000
"""Opt-outs that are kept while it does not; more than these are dropped, newest first, and told."""

# A 0 right after what may be a country code: often one that is only dialled within the country.
_TRUNK_ZERO: Final = re.compile(r"(00)?[1-9][0-9]{0,2}0")

# With + and country code, and no 0 where one could be too many.
_PLAIN: Final = re.compile(r"\+[1-9][1-9]{3}[0-9]{3,11}")


class OptOutInbox(Service):
    """Gathers what is heard, and writes it; knows what the config says of opt-outs."""

    def __init__(self, opt_outs: OptOuts, config: Config, spool: OptOutSpool) -> None:
        self._opt_outs = opt_outs
        self._spool = spool
        self._heard = deque(spool.load())
        self._news = asyncio.Event()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """The config was reloaded: `run` tells the database."""
        self._config = config
        self._words = OptOutWords(config.opt_outs.words or ())
        self._told = False
        self._news.set()

    def add(self, heard: ipc.OptedOut) -> None:
        """A worker heard somebody opt out."""
        log.info("somebody opted out", action="opt_out", device=heard.device_id)
        if len(self._heard) >= MOST:
            log.error("an opt-out is lost: too many wait for the database", action="opt_out", device=heard.device_id)
            return
        kept = HeardOptOut(heard.device_id, tuple(heard.recipients), heard.words, heard.at)
        self._spool.keep(kept)
        self._heard.append(kept)
        self._news.set()

    def incoming(self, device_id: str, sender: str, text: str) -> None:
        """Somebody wrote to a device whose platform told this node; `sender`: digits of a phone number."""
        if self._words.ask_to_stop(text):
            self.add(ipc.OptedOut(device_id, [f"+{sender}"], text, time.time()))

    async def serve(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not await self.flush():
                await asyncio.sleep(RETRY)
                self._news.set()

    async def close(self) -> None:
        """Write what was heard last."""
        await self.flush()

    async def flush(self) -> bool:
        """Write everything now; False: the database does not answer, and what is not written waits."""
        try:
            await self.tell()
            await self._write()
        except DatabaseError as error:
            log.warning("opt-outs wait for the database", action="opt_out", waiting=len(self._heard), error=str(error))
            return False
        return True

    async def _write(self) -> None:
        while self._heard:
            heard = self._heard[0]
            try:
                await self._opt_outs.hear(heard, self._config.opt_outs.confirm)
            except DatabaseError as error:
                if not was_refused(error):
                    raise
                log.error("the database refuses an opt-out", action="opt_out", device=heard.device_id, error=str(error))
            self._heard.popleft()
            if not self._heard:
                self._spool.empty()

    async def tell(self) -> None:
        """Tell the database what the config says of opt-outs, if it does not know yet. Raises DatabaseError."""
        if not self._told:
            config = self._config
            await self._opt_outs.configure(config.opt_outs.exempt or (), country_codes(config.transports.regions))
            self._told = config is self._config


class OptOutCheck:
    """A second look for opt-outs, at recipients whose address the database cannot tell for sure."""

    def __init__(self, opt_outs: OptOuts, region_of: Callable[[str], str | None]) -> None:
        """`region_of` a device: the country of numbers without + that it is given, if there is one."""
        self._opt_outs = opt_outs
        self._region_of = region_of

    async def __call__(self, taken: Sequence[ClaimedJob]) -> set[int]:
        """The ids of the jobs that must not be sent. Raises DatabaseError: then nobody knows."""
        addresses = {job.claim.id: address for job in taken if (address := self._other_address(job)) is not None}
        return await self._opt_outs.unwanted(addresses) if addresses else set()

    def _other_address(self, job: ClaimedJob) -> str | None:
        """The address to which the job's worker will send, if that is another than the database takes it for."""
        recipient = job.spec.recipient
        if _PLAIN.fullmatch(recipient):  # nearly all: without asking for the device's region
            return None
        region = self._region_of(job.spec.device_id)
        if job.opted_out or not needs_parsing(recipient, region):
            return None
        try:
            number = parse_recipient(recipient, region).number
        except PermanentError:
            return None  # the worker will say so
        return None if number == job.claim.address else number


def needs_parsing(recipient: str, region: str | None) -> bool:
    """Whether a recipient may mean another number than its digits are."""
    if "@" in recipient:
        return False
    digits = re.sub("[^0-9]", "", recipient)
    if recipient.lstrip(" (").startswith("+") or digits.startswith("00"):
        return _TRUNK_ZERO.match(digits) is not None
    return region is not None


def country_codes(regions: Iterable[str]) -> list[str]:
    """Their calling codes, without doubles."""
    return sorted({str(phonenumbers.country_code_for_region(region)) for region in regions})
