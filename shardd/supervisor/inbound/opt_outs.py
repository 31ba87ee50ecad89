"""Who wants no more messages: what devices hear on its way to the list, and a last look at jobs that are about to leave.

An opt-out is written at once. When the database is away, or somebody's open transaction has inserted the same recipient, it is
kept, on the disk too, and tried again; it holds up no other. From the moment when it is heard this node claims nothing for that
recipient that an opt-out stops, whichever device would send it and however the recipient is spelled. Other nodes learn of it from
the database and cannot know before it is stored there: which is why one that waits is a problem in the status.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shardd import ipc
from shardd.config import Config
from shardd.errors import BlockedError, DatabaseError, PermanentError, RefusedDataError
from shardd.logs import get_logger
from shardd.opt_out_words import OptOutWords
from shardd.phone_numbers import address_of, country_codes, is_ambiguous, parse_recipient
from shardd.queue.opt_outs import HeardOptOut, OptOuts
from shardd.queue.records import ClaimedJob
from shardd.supervisor.inbound.opt_out_spool import OptOutSpool
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.tasks import wait_for_event

log = get_logger(__name__)

RETRY: Final = 1.0
"""Seconds between tries while the database does not answer."""
BLOCKED_RETRY: Final = 2.0
"""Seconds until one is tried again that somebody's transaction blocks."""
FLUSH: Final = 5.0
"""Seconds that a start or a stop may wait for what cannot be stored: it stands on the disk, and is heeded from the start on."""
REPORT_AFTER: Final = 10.0
"""Seconds for which one waits before that is a problem: a database that restarts is back sooner."""
MOST: Final = 100_000
"""Opt-outs that are kept while they wait; more than these are dropped, newest first, and told."""
MOST_OF_ONE: Final = 2
"""Of one person's: the list keeps that somebody said it again, and no more of that."""
REMEMBERED: Final = 10_000
"""Addresses that are heeded although they are stored: a job may have been claimed just before they were."""


@dataclass(slots=True)
class _Waiting:
    """One that is not stored yet."""

    number: int
    heard: HeardOptOut
    since: float
    """By the monotonic clock: when it was heard, or read from the disk."""
    due: float = 0.0
    """By the monotonic clock: not to be tried before."""
    tried: bool = False

    def addresses(self) -> list[str]:
        return [address_of(recipient) for recipient in self.heard.recipients]


class OptOutInbox(Service):
    """Gathers what is heard, and writes it; knows what the config says of opt-outs."""

    def __init__(self, opt_outs: OptOuts, config: Config, spool: OptOutSpool) -> None:
        """`opt_outs`: over a database whose statements wait only briefly for a lock."""
        self._opt_outs = opt_outs
        self._spool = spool
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        """All of them, as they were heard."""
        self._fresh: deque[_Waiting] = deque()
        """Not tried yet: these go first."""
        self._retries: deque[_Waiting] = deque()
        self._number = 0
        self._said: Counter[str] = Counter()
        """How many wait, by address."""
        self._stored: OrderedDict[str, None] = OrderedDict()
        self._why = ""
        self._lost = 0
        self._news = asyncio.Event()
        for heard in spool.load():
            self._accept(heard)
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
        kept = HeardOptOut(heard.device_id, tuple(heard.recipients), heard.words, heard.at)
        if min((self._said[address_of(recipient)] for recipient in kept.recipients), default=0) >= MOST_OF_ONE:
            return
        if len(self._waiting) >= MOST:
            log.error("an opt-out is lost: too many wait for the database", action="opt_out", device=heard.device_id)
            self._lost += 1
            return
        self._spool.keep(kept)
        self._accept(kept)
        self._news.set()

    def incoming(self, device_id: str, sender: str, text: str) -> None:
        """Somebody wrote to a device whose platform told this node; `sender`: digits of a phone number."""
        if self._words.ask_to_stop(text):
            self.add(ipc.OptedOut(device_id, [f"+{sender}"], text, time.time()))

    def heeds(self, address: str) -> bool:
        """Whether somebody with this address was heard to opt out, and the database may not have told it yet."""
        return address in self._said or address in self._stored

    async def serve(self) -> None:
        """Write until cancelled."""
        while True:
            due = self._retries[0].due - time.monotonic() if self._retries else None
            if not self._fresh and (due is None or due > 0):
                await wait_for_event(self._news, due)
            self._news.clear()
            try:
                await self.tell()
                while (queue := self._due()) is not None:
                    await self._try(queue)
            except DatabaseError as error:
                self._failed(error)
                await asyncio.sleep(RETRY)
                self._news.set()

    async def close(self) -> None:
        """Write what was heard last."""
        if not await self.flush():
            log.error(
                "opt-outs are not stored before the end: the next start of this node reads them from its state folder, and until "
                "then nobody heeds them",
                action="opt_out",
                waiting=len(self._waiting),
                error=self._why,
            )

    async def flush(self) -> bool:
        """Try each once, for a few seconds; False: some still wait."""
        until = time.monotonic() + FLUSH
        try:
            await self.tell()
            for _ in range(len(self._waiting)):
                if time.monotonic() >= until or not self._waiting:
                    break
                await self._try(self._fresh or self._retries)
        except DatabaseError as error:
            self._failed(error)
        return not self._waiting

    def problems(self) -> Iterator[Problem]:
        """Opt-outs that wait for long, and those that are lost."""
        if self._lost:
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"opt-outs by message that were lost since the start, because {MOST:,} waited already: {self._lost:,}",
            )
        if not self._waiting:
            return
        seconds = time.monotonic() - next(iter(self._waiting.values())).since
        if seconds >= REPORT_AFTER:
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"opt-outs by message that wait to be stored: {len(self._waiting):,}, the oldest for {seconds:.0f} s; "
                f"this node heeds them already, other nodes and producers cannot know of them: {self._why or 'being written'}",
            )

    def _accept(self, heard: HeardOptOut) -> None:
        self._number += 1
        waiting = _Waiting(self._number, heard, time.monotonic())
        self._said.update(waiting.addresses())
        self._waiting[waiting.number] = waiting
        self._fresh.append(waiting)

    def _due(self) -> deque[_Waiting] | None:
        """Where the next one stands that is to be tried now."""
        if self._fresh:
            return self._fresh
        return self._retries if self._retries and self._retries[0].due <= time.monotonic() else None

    async def _try(self, queue: deque[_Waiting]) -> None:
        """Store the first of a queue, or put it behind the others. Raises DatabaseError when it is not to blame for that."""
        waiting = queue[0]  # and it stays there until the end, which may be a cancellation
        try:
            await self._opt_outs.hear(waiting.heard, self._config.opt_outs.confirm, without_answer=waiting.tried)
        except RefusedDataError as error:
            device = waiting.heard.device_id
            log.error("the database refuses an opt-out", action="opt_out", device=device, error=str(error))
        except DatabaseError as error:
            queue.popleft()
            waiting.due, waiting.tried = time.monotonic() + BLOCKED_RETRY, True
            self._retries.append(waiting)
            if not isinstance(error, BlockedError):
                raise
            self._failed(error)
            return
        queue.popleft()
        self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        """It is stored."""
        del self._waiting[waiting.number]
        for address in waiting.addresses():
            self._said[address] -= 1
            if not self._said[address]:
                del self._said[address]
            self._stored[address] = None
            self._stored.move_to_end(address)
        while len(self._stored) > REMEMBERED:
            self._stored.popitem(last=False)
        if not self._waiting:
            self._spool.empty()
            self._why = ""
        else:
            self._spool.shorten(len(self._waiting), (one.heard for one in self._waiting.values()))

    def _failed(self, error: DatabaseError) -> None:
        if not self._why:
            log.warning(
                "opt-outs wait for the database", action="opt_out", waiting=len(self._waiting), error=str(error)
            )
        self._why = str(error)

    async def tell(self) -> None:
        """Tell the database what the config says of opt-outs, if it does not know yet. Raises DatabaseError."""
        if not self._told:
            config = self._config
            await self._opt_outs.configure(config.opt_outs.exempt or (), country_codes(config.transports.regions))
            self._told = config is self._config


class OptOutCheck:
    """A second look for opt-outs: what was heard and is not stored yet, and addresses that the database cannot tell for sure."""

    def __init__(
        self,
        opt_outs: OptOuts,
        region_of: Callable[[str], str | None],
        heeds: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`region_of` a device: the country of numbers without + that it is given, if there is one.

        `heeds`: whether an address was heard to opt out, whatever the database knows (`OptOutInbox.heeds`).
        """
        self._opt_outs = opt_outs
        self._region_of = region_of
        self._heeds = heeds

    async def __call__(self, taken: Sequence[ClaimedJob]) -> set[int]:
        """The ids of the jobs that must not be sent. Raises DatabaseError: then nobody knows."""
        others = {job.claim.id: address for job in taken if (address := self._other_address(job)) is not None}
        unwanted = {
            job.claim.id
            for job in taken
            if job.spec.heeds_opt_outs and (self._heeds(job.claim.address) or self._heeds(others.get(job.claim.id, "")))
        }
        unknown = {job: address for job, address in others.items() if job not in unwanted}
        return unwanted | await self._opt_outs.unwanted(unknown) if unknown else unwanted

    def _other_address(self, job: ClaimedJob) -> str | None:
        """The address to which the job's worker will send, if that is another than the database takes it for."""
        recipient, region = job.spec.recipient, self._region_of(job.spec.device_id)
        if job.opted_out or not is_ambiguous(recipient, region):
            return None
        try:
            address = parse_recipient(recipient, region).address
        except PermanentError:
            return None  # the worker will report it
        return None if address == job.claim.address else address
