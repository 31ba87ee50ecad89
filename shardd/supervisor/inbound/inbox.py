"""Brings incoming messages from the spool into the database, and opt-outs among them into force.

A message is in the spool until its row and its event are committed, so a crash of this node or of the database costs nothing; one
that is stored twice causes nothing the second time. Only a message that could not be written to the disk is in memory, and
goes to the database from there. One that the database refuses blocks no other: its file is set aside. Neither does one whose rows
another transaction has locked: it is retried by itself, and later ones of the same device may be stored before it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from shardd import ipc
from shardd.config import Config
from shardd.errors import BlockedError, DatabaseError, RefusedDataError
from shardd.incoming import Incoming, is_wanted
from shardd.incoming_spool import OPT_OUT, IncomingSpool
from shardd.logs import get_logger
from shardd.opt_out_words import OptOutWords
from shardd.persons import recipient_at
from shardd.queue.inbox import Inbox, MessageKey
from shardd.queue.opt_outs import OptedOut, OptOuts
from shardd.supervisor.inbound.media.downloads import MediaDownloads
from shardd.supervisor.inbound.opt_outs import OptOutInbox
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.tasks import wait_for_event

log = get_logger(__name__)

POLL: Final = 1.0
"""Seconds between looks at the spool: a worker that dies does not report what it wrote."""
RETRY: Final = 1.0
"""Seconds between attempts while the database does not answer."""
SHARE: Final = 20
"""A look at a folder with very many files pauses this many times as long as it took."""
BATCH: Final = 200
"""Messages of one transaction."""
JOB_WAIT: Final = 5.0
"""Seconds that an answer waits for the job that it answers: a person's phone may be faster than the settlement of the job."""
BLOCKED_RETRY: Final = (1.0, 30.0)
"""Seconds until one is retried that another transaction blocks: the first time, doubled with each try, and at most."""
BLOCKED_MOST: Final = 5
"""Messages that may be found blocked before a round ends: if the table is locked, all of them are."""
REPORT_AFTER: Final = 10.0
"""Seconds that one may wait before that is a problem: a database that restarts is back sooner."""
MAX_WORDS: Final = 1000
"""Characters of an opt-out's words, as 0007_opt_outs.sql admits them."""
MOST_UNSPOOLED: Final = 10_000
"""Messages in memory; beyond that new ones are lost, and reported."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that is not stored yet; times on the monotonic clock."""

    since: float
    name: str | None = None
    """Of its file; None: it is only in memory."""
    message: Incoming | None = None
    opt_out_open: bool = False
    """It is an opt-out that is not on the list yet."""
    taken_back: bool = False
    """What it takes back is taken back."""
    said: OptedOut | None = None
    """By which it takes something back."""
    due: float | None = None
    """When to try it again: it waits for the job that it answers, or is blocked."""
    tries: int = 0
    """How often it was found blocked."""
    blocked: str = ""
    """By which transaction, as far as known."""


class InboxWriter(Service):
    """Reads the spool and stores what is in it."""

    def __init__(
        self,
        inbox: Inbox,
        spool: IncomingSpool,
        persons: OptOuts,
        *,
        opt_outs: OptOutInbox,
        media: MediaDownloads,
        config: Config,
        spool_errors: Callable[[], Sequence[str]],
        has_device: Callable[[str], bool],
    ) -> None:
        """`persons` remembers which addresses are one person's; `spool_errors`: why workers cannot write to the spool now.

        `has_device`: whether there is a device of this id, to which more than opt-outs is kept.
        `inbox` and `persons` are over a database whose statements wait only briefly for a lock.
        Opt-outs that are in the spool are in force from now on.
        """
        self._inbox = inbox
        self._spool = spool
        self._persons = persons
        self._opt_outs = opt_outs
        self._media = media
        self._spool_errors = spool_errors
        self._has_device = has_device
        self._waiting: dict[_Waiting, None] = {}
        """All of them, the oldest first."""
        self._seen: set[str] = set()
        """The names of the files among them."""
        self._unspooled = 0
        self._lost = 0
        self._damaged = 0
        """Files that were set aside, as of the last look."""
        self._error = ""
        self._wake = asyncio.Event()
        self._look_at = 0.0
        """When to look at the folder again, on the monotonic clock."""
        self.configure(config)
        try:
            self._scan()
        except OSError as error:
            self._error = str(error)

    def configure(self, config: Config) -> None:
        """The config was reloaded."""
        self._words = OptOutWords(config.opt_outs.words or (), config.opt_outs.take_back_words or ())
        self._include = (config.inbox.include or ()) if config.inbox.keep else None

    def arrived(self, arrived: ipc.Arrived) -> None:
        """A worker has received a message. An opt-out is in force when this returns, unless its file cannot be read now."""
        if arrived.unspooled is not None:
            self._take_unspooled(arrived.unspooled)
        elif arrived.name is not None:
            try:
                self._take(arrived.name)
            except OSError as error:
                self._look_at = 0.0
                log.warning("the file of a message cannot be read", action="inbox", file=arrived.name, error=str(error))
        self._wake.set()

    async def receive(self, messages: Sequence[Incoming]) -> None:
        """Keep what a platform reports; opt-outs among them are in force when this returns.

        Of what is written to a device that is not there, only what opt-outs depend on: whoever asks for no more messages means
        all devices. Raises OSError, UnsafeFileError when not all could be kept: the platform has to repeat them.
        """
        wanted = [one for message in messages if self._is_wanted(one := self._with_words(message))]
        try:
            for name in await asyncio.to_thread(self._spool.keep_all, wanted):
                self._take(name)
        except BaseException:
            self._look_at = 0.0  # some may be there
            raise
        finally:
            self._wake.set()

    async def serve(self) -> None:
        """Store messages as they arrive, and retry."""
        while True:
            await wait_for_event(self._wake, max(0.0, self._look_at - time.monotonic()))
            self._wake.clear()
            if self._spool.error is not None:
                await asyncio.to_thread(self._spool.check)
            if not await self._store_all(look=time.monotonic() >= self._look_at):
                await asyncio.sleep(RETRY)

    async def close(self) -> None:
        """Store the last ones; the next start finds the others in the spool."""
        for one in self._waiting:
            if one.name is None:
                one.due = 0.0  # there is no later for it
        await self._store_all(look=True)

    def problems(self) -> Iterator[Problem]:
        """Messages that wait for long, are lost or damaged, and a spool that takes none."""
        for error in sorted(set(self._spool_errors())):
            yield _problem(
                f"incoming messages cannot be written to the disk, and a crash would lose them: {error}: free some space"
            )
        if (refused := self._spool.error) is not None:
            yield _problem(
                f"messages of platforms cannot be written to the disk, and are refused, so that they are repeated: {refused}"
            )
        if self._lost:
            yield _problem(f"incoming messages that were lost since the start: {self._lost:,}")
        if self._damaged:
            yield _problem(
                f"incoming messages that cannot be stored: {self._damaged:,}: look at the files *.damaged in "
                f"{self._spool.folder}, and delete them"
            )
        oldest = next(iter(self._waiting), None)
        if oldest is not None and (seconds := time.monotonic() - oldest.since) >= REPORT_AFTER:
            yield _problem(
                f"incoming messages that wait to be stored: {len(self._waiting):,}, the oldest for {seconds:.0f} s: "
                f"{self._error or oldest.blocked or 'being written'}"
            )

    # ---- inside

    async def _store_all(self, *, look: bool) -> bool:
        """Store all that can be stored now, after a `look` at the folder; False: something failed."""
        error: Exception | None = None
        try:
            if look:
                self._scan()
        except OSError as unreadable:
            error = unreadable  # what is only in memory can be stored
        try:
            now = time.monotonic()
            due = deque(one for one in self._waiting if one.due is None or one.due <= now)
            while due:
                await self._store([due.popleft() for _ in range(min(BATCH, len(due)))])
        except (DatabaseError, OSError) as failed:
            error = failed
        if error is not None and not self._error:
            log.warning("incoming messages wait", action="inbox", waiting=len(self._waiting), error=str(error))
        self._error = "" if error is None else str(error)
        return error is None

    def _scan(self) -> None:
        """Take what is in the folder. Raises OSError, also when only some files cannot be read: the others are taken."""
        self._look_at = 0.0
        began = time.monotonic()
        self._damaged = sum(1 for _ in self._spool.damaged())
        unreadable: OSError | None = None
        for name in self._spool.names():
            try:
                self._take(name)
            except OSError as error:
                unreadable = error
        if unreadable is not None:
            raise unreadable
        now = time.monotonic()
        self._look_at = now + max(POLL, SHARE * (now - began))

    def _with_words(self, message: Incoming) -> Incoming:
        """A message of a platform, with what its words ask for."""
        if not message.can_opt_out:
            return message
        opt_out, take_back = self._words.ask_to_stop(message.text), self._words.ask_to_start(message.text)
        if not message.timed and not (message.identified and self._include is not None):
            # A repetition of it, which comes after a later opt-out, could not be recognised.
            take_back = False
        return msgspec.structs.replace(message, opt_out=opt_out, take_back=take_back)

    def _is_wanted(self, message: Incoming) -> bool:
        return is_wanted(message, self._include if self._has_device(message.device_id) else None)

    def _take(self, name: str) -> None:
        """A file of the spool. An opt-out without room on the list's side is taken at a later look. Raises OSError."""
        if name in self._seen:
            return
        # Read first: of one that cannot be read now, nothing may be stored before it is an opt-out that waits for the list.
        opt_out = self._spool.read(name) if name.endswith(OPT_OUT) else None
        if opt_out is None and name.endswith(OPT_OUT):
            return
        one = _Waiting(time.monotonic(), name=name)
        self._seen.add(name)
        self._waiting[one] = None
        if opt_out is not None and not self._take_opt_out(one, opt_out):
            self._drop(one)

    def _take_unspooled(self, message: Incoming) -> None:
        if self._unspooled >= MOST_UNSPOOLED:
            log.error("an incoming message is lost", action="inbox", device=message.device_id)
            self._lost += 1
            return
        one = _Waiting(time.monotonic(), message=message)
        self._unspooled += 1
        self._waiting[one] = None
        if message.opt_out and not self._take_opt_out(one, message):
            log.error("an opt-out is lost: too many wait for the database", action="opt_out", device=message.device_id)
            self._lost += 1

    def _take_opt_out(self, one: _Waiting, message: Incoming) -> bool:
        one.opt_out_open = True
        return self._opt_outs.add(_said(message), partial(self._listed, one))

    def _listed(self, one: _Waiting, refused: bool) -> None:
        """The opt-out is on the list, or `refused` by the database."""
        one.opt_out_open = False
        if refused and one.name is not None:
            self._set_aside(one.name)
        if one not in self._waiting:
            self._delete(one)

    async def _store(self, batch: Sequence[_Waiting]) -> None:
        """Store these; each by itself if the database refuses or blocks them together. Raises DatabaseError, OSError."""
        messages = [prepared for one in batch if (prepared := await self._prepare(one)) is not None]
        jobs = await self._jobs_of([message for _, message in messages])
        ready = []
        for one, message in messages:
            if one.due is None and message.quoted_id and (message.device_id, message.quoted_id) not in jobs:
                self._retry(one, JOB_WAIT)
            else:
                ready.append((one, message))
        if not ready:
            return
        try:
            await self._persons.learn(pair for _, message in ready for pair in _pairs(message))
            await self._persons.learn((pair for _, message in ready for pair in _moves(message)), moved=True)
            if self._include is not None:
                await self._inbox.store([message for _, message in ready], jobs, self._media.plan)
        except (RefusedDataError, BlockedError) as error:
            if len(ready) > 1:
                await self._store_each([one for one, _ in ready])
            elif isinstance(error, BlockedError):
                self._blocked(ready[0][0], error)
            else:
                self._refused(*ready[0], error)
            return
        for one, message in ready:
            self._forget(one, message)

    async def _store_each(self, batch: Sequence[_Waiting]) -> None:
        """Raises DatabaseError, also when so many are blocked that the table may be."""
        blocked = 0
        for one in batch:
            tries, one.due = one.tries, one.due or time.monotonic()
            await self._store([one])
            blocked += one.tries > tries
            if blocked == BLOCKED_MOST:
                raise BlockedError(one.blocked)

    async def _prepare(self, one: _Waiting) -> tuple[_Waiting, Incoming] | None:
        """Take back what it takes back; None: there is nothing to store, at least not yet. Raises DatabaseError, OSError."""
        message = self._read(one)
        if message is None or not await self._take_back(one, message):
            return None
        if self._include is None and message.new_number is None:
            self._forget(one, message)
            return None
        return one, message

    async def _take_back(self, one: _Waiting, message: Incoming) -> bool:
        """Whether the opt-outs that a message takes back are taken back; else it waits. Raises DatabaseError."""
        if message.take_back and not one.taken_back:
            said = _said(message)
            # Repeated before the first one is in the inbox, which has its time.
            repeated = [
                other.said.at for other in self._waiting if other.said is not None and _is_same(other.said, said)
            ]
            one.said = dataclasses.replace(said, at=min([said.at, *repeated]))
            one.taken_back = await self._opt_outs.take_back(one.said)
            return one.taken_back
        return True

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

    def _blocked(self, one: _Waiting, error: BlockedError) -> None:
        if not one.tries:
            log.warning("a message waits for another transaction", action="inbox", error=str(error))
        first, longest = BLOCKED_RETRY
        self._retry(one, min(longest, first * 2**one.tries))
        one.tries += 1
        if (
            error.blocker is not None or not one.blocked
        ):  # on a busy server, not every look comes in time to see who it is
            one.blocked = str(error)

    def _retry(self, one: _Waiting, delay: float) -> None:
        one.due = time.monotonic() + delay
        asyncio.get_running_loop().call_later(delay, self._wake.set)

    def _refused(self, one: _Waiting, message: Incoming, error: RefusedDataError) -> None:
        log.error("the database refuses a message", action="inbox", device=message.device_id, error=str(error))
        if one.name is not None:
            self._set_aside(one.name)
        self._drop(one)

    def _forget(self, one: _Waiting, message: Incoming) -> None:
        """It is stored; its file goes, unless it is an opt-out that is not on the list yet, or has a file to be downloaded."""
        del self._waiting[one]
        if one.opt_out_open:
            return
        if self._media.awaits(message):
            if self._media.take(message, one.name):
                self._gone(one)
        else:
            self._delete(one)

    def _drop(self, one: _Waiting) -> None:
        """It has no file any more, or none that can be read."""
        del self._waiting[one]
        self._gone(one)

    def _delete(self, one: _Waiting) -> None:
        if one.name is not None:
            try:
                self._spool.delete(one.name)
            except OSError as error:
                # It is stored again, which changes nothing, by the next start.
                log.error("the file of a message cannot be deleted", action="inbox", error=str(error))
                return
        self._gone(one)

    def _gone(self, one: _Waiting) -> None:
        if one.name is None:
            self._unspooled -= 1
        else:
            self._seen.discard(one.name)

    def _set_aside(self, name: str) -> None:
        try:
            self._spool.set_aside(name)
            self._damaged += 1
        except OSError as error:
            log.error("the file of a message cannot be set aside", action="inbox", file=name, error=str(error))


def _said(message: Incoming) -> OptedOut:
    return OptedOut(
        message.device_id, message.addresses, message.text[:MAX_WORDS], message.at, message_id=message.message_id
    )


def _is_same(one: OptedOut, other: OptedOut) -> bool:
    """Whether both are one message."""
    return (one.device_id, one.message_id, one.sender) == (other.device_id, other.message_id, other.sender)


def _pairs(message: Incoming) -> Iterator[tuple[str, str]]:
    """The sender's best address with each of the others, as the database knows them."""
    first, *others = (recipient_at(one).address for one in message.addresses or ("",))
    return ((first, other) for other in others)


def _moves(message: Incoming) -> Iterator[tuple[str, str]]:
    """The sender's old number with their new one."""
    if message.new_number is not None and message.number is not None:
        yield recipient_at(message.number).address, recipient_at(message.new_number).address


def _problem(text: str) -> Problem:
    return Problem(ProblemKind.INBOX, text)
