"""Opt-outs that devices receive, until they are stored, and a last check of claimed jobs.

An opt-out is written at once. While the database is unreachable, or another program's open transaction has inserted the same
recipient, it is kept and retried, and its message stays in the spool; it blocks no other. From the moment it arrives, this node
sends that recipient nothing that an opt-out stops, whichever device would send it and however the recipient is spelled. Other
nodes learn of it from the database and cannot know before it is stored, so one that waits for long is a problem in the status.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shardd.bounded import remember
from shardd.config import Config
from shardd.errors import BlockedError, DatabaseError, RefusedDataError
from shardd.logs import get_logger
from shardd.persons import address_of_number, recipient_at
from shardd.phone_numbers import calling_codes
from shardd.queue.opt_outs import OptedOut, OptOuts
from shardd.queue.records import ClaimedJob
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.tasks import wait_for_event

log = get_logger(__name__)

RETRY: Final = 1.0
"""Seconds between attempts while the database does not answer."""
BLOCKED_RETRY: Final = 2.0
"""Seconds until one is retried that another transaction blocks."""
FLUSH: Final = 5.0
"""Seconds that a start or stop waits for what cannot be stored: it is on the disk, and in force from the start on."""
REPORT_AFTER: Final = 10.0
"""Seconds that one may wait before that is a problem: a database that restarts is back sooner."""
MOST: Final = 100_000
"""Opt-outs that may wait here; beyond that new ones wait in the spool, and are not in force yet, which is reported."""
MOST_OF_ONE: Final = 2
"""Waiting opt-outs of the same addresses, the first and the latest: the database records a repetition, and no more."""
REMEMBERED: Final = 10_000
"""Stored addresses that are still checked: a job may have been claimed just before they were stored."""

ASK_AGAIN: Final = 30.0
"""Seconds until the session store is asked again for numbers after it, or the database, did not answer."""
ASK_MOST: Final = 500
"""Hidden addresses of one question."""


Ended = Callable[[bool], None]
"""Called once an opt-out is stored; with True: the database refuses it."""


NumbersOf = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""The numbers (digits) of LIDs, as far as they are known. Raises DatabaseError."""


async def _no_numbers(_: Sequence[str]) -> Mapping[str, str]:
    return {}


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that is not stored yet."""

    opt_out: OptedOut
    ended: Ended
    since: float
    """When it arrived, or was read from the disk, on the monotonic clock."""
    due: float = 0.0
    """When to retry it, on the monotonic clock."""
    tried: bool = False

    def addresses(self) -> list[str]:
        return [recipient_at(recipient).address for recipient in self.opt_out.recipients]

    def repeat(self, opt_out: OptedOut, ended: Ended) -> None:
        """The same addresses opted out again. The later one is stored: a person takes back only what they said before."""
        if opt_out.at > self.opt_out.at:
            self.opt_out, opt_out = opt_out, self.opt_out
            self.ended, ended = ended, self.ended
        ended(False)


class OptOutInbox(Service):
    """Collects opt-outs and stores them; stores the config's opt-out settings."""

    def __init__(self, opt_outs: OptOuts, config: Config, numbers_of: NumbersOf = _no_numbers) -> None:
        """`opt_outs`: over a database whose statements wait only briefly for a lock; `numbers_of`: from the session store."""
        self.on_heard: Callable[[Sequence[str]], None] = lambda _: None
        """Called with the addresses of a person as soon as their opt-out is in force."""
        self._opt_outs = opt_outs
        self._numbers_of = numbers_of
        self._waiting: dict[_Waiting, None] = {}
        """All of them, the oldest first."""
        self._fresh: deque[_Waiting] = deque()
        """Not tried yet; these go first."""
        self._retries: deque[_Waiting] = deque()
        self._waiting_for: Counter[str] = Counter()
        """How many wait, by address."""
        self._repeated: dict[tuple[str, ...], deque[_Waiting]] = {}
        """At most `MOST_OF_ONE`, by their addresses."""
        self._stored: OrderedDict[str, float] = OrderedDict()
        """When, on the monotonic clock, by address."""
        self._hidden: OrderedDict[str, None] = OrderedDict()
        """Addresses of stored opt-outs without a number, which a session may know; at most `REMEMBERED`."""
        self._ask_at = 0.0
        """When to ask for these, on the monotonic clock."""
        self._error = ""
        self._refusing = False
        """Whether the last one had no room."""
        self._wake = asyncio.Event()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """The config was reloaded; `run` passes it on to the database."""
        self._config = config
        self._configured = False
        self._wake.set()

    def add(self, opt_out: OptedOut, ended: Ended = lambda _: None) -> bool:
        """Take over an opt-out, which is in force from now on; False: there is no room for it."""
        waiting = _Waiting(opt_out, ended, time.monotonic())
        same = self._repeated.get(tuple(waiting.addresses()))
        if same is not None and len(same) >= MOST_OF_ONE:
            same[-1].repeat(opt_out, ended)
            return True
        self._refusing = len(self._waiting) >= MOST
        if self._refusing:
            return False
        log.info("a recipient opted out", action="opt_out", device=opt_out.device_id)
        self._waiting_for.update(waiting.addresses())
        self._repeated.setdefault(tuple(waiting.addresses()), deque()).append(waiting)
        self._waiting[waiting] = None
        self._fresh.append(waiting)
        self._wake.set()
        # A claim may not know that one of them is its job's: before the message leaves, its worker asks.
        self.on_heard(waiting.addresses())
        return True

    def contains(self, address: str, since: float) -> bool:
        """Whether this address has opted out so recently that a claim may not know it from the database.

        `since`: when the claim began, on the monotonic clock. Later claims know more: it may have been taken back.
        """
        return address in self._waiting_for or self._stored.get(address, since) > since

    async def take_back(self, said: OptedOut) -> bool:
        """A person took their opt-outs back; False: try again later. Raises DatabaseError.

        What they said before must be on the list first: this, too, counts only against what is older.
        """
        if any(recipient_at(recipient).address in self._waiting_for for recipient in said.recipients):
            return False
        try:
            taken = await self._opt_outs.take_back(said, self._config.opt_outs.take_back_confirm)
        except BlockedError as error:
            log.warning("taking an opt-out back waits for the database", action="opt_out", error=str(error))
            return False
        except RefusedDataError as error:
            log.error(
                "the database refuses to take an opt-out back",
                action="opt_out",
                device=said.device_id,
                error=str(error),
            )
            return True
        if taken:
            log.info("a recipient took an opt-out back", action="opt_out", device=said.device_id)
        return True

    async def serve(self) -> None:
        """Store opt-outs as they arrive, and retry."""
        while True:
            times = [waiting.due for waiting in itertools.islice(self._retries, 1)]
            if self._hidden:
                times.append(self._ask_at)
            due = min(times) - time.monotonic() if times else None
            if not self._fresh and (due is None or due > 0):
                await wait_for_event(self._wake, due)
            self._wake.clear()
            try:
                await self.configure_database()
                while (queue := self._due()) is not None:
                    await self._try(queue)
                await self._learn_numbers()
            except DatabaseError as error:
                self._failed(error)
                await asyncio.sleep(RETRY)
                self._wake.set()

    async def close(self) -> None:
        """Store the last ones."""
        if not await self.flush():
            log.error(
                "opt-outs could not be stored before the stop: the next start of this node reads them from its state folder, and "
                "until then they have no effect",
                action="opt_out",
                waiting=len(self._waiting),
                error=self._error,
            )

    async def flush(self) -> bool:
        """Try each once, within `FLUSH`; False: some still wait."""
        until = time.monotonic() + FLUSH
        try:
            await self.configure_database()
            for _ in range(len(self._waiting)):
                if time.monotonic() >= until or not self._waiting:
                    break
                await self._try(self._fresh or self._retries)
            if time.monotonic() < until:
                await self._learn_numbers()
        except DatabaseError as error:
            self._failed(error)
        return not self._waiting

    def problems(self) -> Iterator[Problem]:
        """Opt-outs that wait for long, or have no room."""
        if self._refusing:
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"opt-outs by message that are not in force yet, because {MOST:,} wait to be stored: they are on the disk",
            )
        if not self._waiting:
            return
        seconds = time.monotonic() - next(iter(self._waiting)).since
        if seconds >= REPORT_AFTER:
            yield Problem(
                ProblemKind.OPT_OUTS,
                f"opt-outs by message that wait to be stored: {len(self._waiting):,}, the oldest for {seconds:.0f} s; "
                f"in force on this node, but unknown to other nodes and producers: {self._error or 'being written'}",
            )

    def _due(self) -> deque[_Waiting] | None:
        """The queue whose first one is to be tried now."""
        if self._fresh:
            return self._fresh
        return self._retries if self._retries and self._retries[0].due <= time.monotonic() else None

    async def _try(self, queue: deque[_Waiting]) -> None:
        """Store the first of a queue, or retry it later. Raises DatabaseError unless only this one is blocked."""
        waiting = queue[0]  # it stays there until the end, which may be a cancellation
        opt_out = waiting.opt_out
        refused = False
        try:
            await self._opt_outs.store(opt_out, self._config.opt_outs.confirm, without_answer=waiting.tried)
        except RefusedDataError as error:
            log.error("the database refuses an opt-out", action="opt_out", device=opt_out.device_id, error=str(error))
            refused = True
        except DatabaseError as error:
            queue.popleft()
            waiting.due, waiting.tried = time.monotonic() + BLOCKED_RETRY, True
            self._retries.append(waiting)
            if not isinstance(error, BlockedError):
                raise
            self._failed(error)
            return
        if waiting.opt_out is not opt_out:
            return  # a later one came meanwhile, and is next
        queue.popleft()
        self._forget(waiting)
        waiting.ended(refused)
        if not refused and all("@" in recipient for recipient in opt_out.recipients):
            for address in waiting.addresses():
                remember(self._hidden, address, None, REMEMBERED)

    async def _learn_numbers(self) -> None:
        """WhatsApp hid the numbers of people who opted out: a session may know them, and the opt-outs hold for these, too.

        Until then, and if none knows them, the worker asks with the LID as well right before a message leaves.
        """
        if not self._hidden or time.monotonic() < self._ask_at:
            return
        hidden = list(itertools.islice(self._hidden, ASK_MOST))
        try:
            numbers = await self._numbers_of(hidden)
            await self._opt_outs.learn((address_of_number(number), address) for address, number in numbers.items())
        except DatabaseError as error:
            log.warning("the numbers of opt-outs are not known", action="opt_out", error=str(error))
            self._ask_at = time.monotonic() + ASK_AGAIN
            if not isinstance(error, RefusedDataError):
                return
        for address in hidden:
            self._hidden.pop(address, None)

    def _forget(self, waiting: _Waiting) -> None:
        """It is stored."""
        del self._waiting[waiting]
        addresses = tuple(waiting.addresses())
        self._repeated[addresses].remove(waiting)
        if not self._repeated[addresses]:
            del self._repeated[addresses]
        for address in addresses:
            self._waiting_for[address] -= 1
            if not self._waiting_for[address]:
                del self._waiting_for[address]
            remember(self._stored, address, time.monotonic(), REMEMBERED)
        if not self._waiting:
            self._error = ""

    def _failed(self, error: DatabaseError) -> None:
        if not self._error:
            log.warning(
                "opt-outs wait for the database", action="opt_out", waiting=len(self._waiting), error=str(error)
            )
        self._error = str(error)

    async def configure_database(self) -> None:
        """Store the config's opt-out settings, if they are new. Raises DatabaseError."""
        if not self._configured:
            config = self._config
            await self._opt_outs.configure(config.opt_outs.exempt or (), calling_codes(config.transports.regions))
            self._configured = config is self._config


class OptOutCheck:
    """Checks claimed jobs for opt-outs that are not stored yet."""

    def __init__(self, opted_out: Callable[[str, float], bool]) -> None:
        """`opted_out`: `OptOutInbox.contains`."""
        self._opted_out = opted_out

    async def __call__(self, claimed: Sequence[ClaimedJob], began: float) -> set[int]:
        """The ids of the jobs that must not be sent; `began`: when their claim did, on the monotonic clock."""
        return {
            job.claim.id for job in claimed if job.spec.heeds_opt_outs and self._opted_out(job.claim.address, began)
        }
