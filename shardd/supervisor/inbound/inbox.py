"""Brings incoming messages from the spool into the database.

A message is in the spool until its row and its event are committed, so a crash of this node or of the database costs nothing; one
that is stored twice causes nothing the second time. Only a message that could not be written to the disk is in memory, and
goes to the database from there. One that the database refuses blocks no other: its file is set aside.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shardd.errors import DatabaseError, RefusedDataError
from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.logs import get_logger
from shardd.queue.inbox import Inbox, MessageKey
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.tasks import wait_for_event

log = get_logger(__name__)

POLL: Final = 1.0
"""Seconds between looks at the spool: a worker that dies does not report what it wrote."""
RETRY: Final = 1.0
"""Seconds between attempts while the database does not answer."""
BATCH: Final = 200
"""Messages of one transaction."""
JOB_WAIT: Final = 5.0
"""Seconds that an answer waits for the job that it answers: a person's phone may be faster than the settlement of the job."""
REPORT_AFTER: Final = 10.0
"""Seconds that one may wait before that is a problem: a database that restarts is back sooner."""
MOST_UNSPOOLED: Final = 10_000
"""Messages in memory; beyond that new ones are lost, and reported."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that is not stored yet; times on the monotonic clock."""

    since: float
    name: str | None = None
    """Of its file; None: it is only in memory."""
    message: Incoming | None = None
    job_by: float | None = None
    """Until when it waits for the job that it answers."""


class InboxWriter(Service):
    """Reads the spool and stores what is in it."""

    def __init__(self, inbox: Inbox, spool: IncomingSpool, spool_errors: Callable[[], Sequence[str]]) -> None:
        """`spool_errors`: why workers cannot write to the spool now."""
        self._inbox = inbox
        self._spool = spool
        self._spool_errors = spool_errors
        self._waiting: dict[_Waiting, None] = {}
        """All of them, the oldest first."""
        self._seen: set[str] = set()
        """The names of the files among them."""
        self._unspooled = 0
        self._lost = 0
        self._error = ""
        self._wake = asyncio.Event()

    def arrived(self, unspooled: Incoming | None) -> None:
        """A worker has received a message; `unspooled`: it is not in the spool."""
        if unspooled is not None:
            if self._unspooled >= MOST_UNSPOOLED:
                log.error("an incoming message is lost", action="inbox", device=unspooled.device_id)
                self._lost += 1
                return
            self._unspooled += 1
            self._waiting[_Waiting(time.monotonic(), message=unspooled)] = None
        self._wake.set()

    async def serve(self) -> None:
        """Store messages as they arrive, and retry."""
        while True:
            await wait_for_event(self._wake, POLL)
            self._wake.clear()
            if not await self._store_all():
                await asyncio.sleep(RETRY)

    async def close(self) -> None:
        """Store the last ones; the next start finds the others in the spool."""
        await self._store_all()

    def problems(self) -> Iterator[Problem]:
        """Messages that wait for long, are lost or damaged, and a spool that takes none."""
        for error in sorted(set(self._spool_errors())):
            yield _problem(
                f"incoming messages cannot be written to the disk, and a crash would lose them: {error}: free some space"
            )
        if self._lost:
            yield _problem(f"incoming messages that were lost since the start: {self._lost:,}")
        try:
            damaged = sum(1 for _ in self._spool.damaged())
        except OSError:
            damaged = 0
        if damaged:
            yield _problem(
                f"incoming messages that cannot be stored: {damaged:,}: look at the files *.damaged in {self._spool.folder}, "
                "and delete them"
            )
        oldest = next(iter(self._waiting), None)
        if oldest is not None and (seconds := time.monotonic() - oldest.since) >= REPORT_AFTER:
            yield _problem(
                f"incoming messages that wait to be stored: {len(self._waiting):,}, the oldest for {seconds:.0f} s: "
                f"{self._error or 'being written'}"
            )

    # ---- inside

    async def _store_all(self) -> bool:
        """Store all that can be stored now; False: something failed."""
        try:
            self._scan()
            now = time.monotonic()
            due = deque(one for one in self._waiting if one.job_by is None or one.job_by <= now)
            while due:
                await self._store([due.popleft() for _ in range(min(BATCH, len(due)))])
        except (DatabaseError, OSError) as error:
            if not self._error:
                log.warning("incoming messages wait", action="inbox", waiting=len(self._waiting), error=str(error))
            self._error = str(error)
            return False
        self._error = ""
        return True

    def _scan(self) -> None:
        now = time.monotonic()
        for name in self._spool.names():
            if name not in self._seen:
                self._seen.add(name)
                self._waiting[_Waiting(now, name=name)] = None

    async def _store(self, batch: Sequence[_Waiting]) -> None:
        """Store these; each by itself if the database refuses them together. Raises DatabaseError, OSError."""
        messages = [(one, message) for one in batch if (message := self._read(one)) is not None]
        jobs = await self._jobs_of([message for _, message in messages])
        now = time.monotonic()
        ready = []
        for one, message in messages:
            if one.job_by is None and message.quoted_id and (message.device_id, message.quoted_id) not in jobs:
                one.job_by = now + JOB_WAIT
                asyncio.get_running_loop().call_later(JOB_WAIT, self._wake.set)
            else:
                ready.append((one, message))
        if not ready:
            return
        try:
            await self._inbox.store([message for _, message in ready], jobs)
        except RefusedDataError as error:
            if len(ready) > 1:
                for one, _ in ready:
                    one.job_by = one.job_by or now
                    await self._store([one])
                return
            self._refused(*ready[0], error)
            return
        for one, _ in ready:
            self._forget(one)

    async def _jobs_of(self, messages: Sequence[Incoming]) -> dict[MessageKey, int]:
        return await self._inbox.jobs_of(
            [(message.device_id, message.quoted_id) for message in messages if message.quoted_id]
        )

    def _read(self, one: _Waiting) -> Incoming | None:
        if one.name is None:
            return one.message
        message = self._spool.read(one.name)
        if message is None:
            # It may be being written: the next scan finds it again, if it is still there.
            self._drop(one)
        return message

    def _refused(self, one: _Waiting, message: Incoming, error: RefusedDataError) -> None:
        log.error("the database refuses a message", action="inbox", device=message.device_id, error=str(error))
        if one.name is not None:
            self._spool.set_aside(one.name)
        self._drop(one)

    def _forget(self, one: _Waiting) -> None:
        """It is stored."""
        if one.name is not None:
            self._spool.delete(one.name)
        self._drop(one)

    def _drop(self, one: _Waiting) -> None:
        del self._waiting[one]
        if one.name is None:
            self._unspooled -= 1
        else:
            self._seen.discard(one.name)


def _problem(text: str) -> Problem:
    return Problem(ProblemKind.INBOX, text)
