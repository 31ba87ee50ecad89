"""One webhook: from the outbox to its receiver, at least once, and how far it is.

Only the node that holds the webhook's row delivers. It posts what the window lets go, notes at most once a second how far
everything is done, and learns from the same statement that it still holds the row. A crash thus repeats what was taken since the
last note, under the same ids; nothing is passed over, because the note is written only after the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from shardd.config import WebhookConfig
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.webhooks import Event, Hold, Progress, SetAside, WebhookStore
from shardd.supervisor.outbox.post import Answer, Meaning, WebhookPost
from shardd.supervisor.outbox.window import DOWN_AFTER, Entry, Patience, Window
from shardd.supervisor.status import WebhookStatus
from shardd.tasks import end_tasks, wait_for_event

log = get_logger(__name__)

POLL_EVERY: Final = 0.5
"""Seconds between looks at the outbox: a notification may be lost, or come before the event can be read."""
SAVE_EVERY: Final = 1.0
"""Seconds between notes of how far it is."""
RENEWALS: Final = 3
"""Times that the row is renewed within the time for which it is held."""
BEHIND: Final = 600.0
"""Seconds that an event may wait for a receiver that takes events, before a person is told."""
AGAIN_MOST: Final = 50
"""Events that were set aside and are read at once to be sent again."""
AGAIN_EVERY: Final = 60.0
"""Seconds between tries of these, when the receiver fails."""


class Endpoint:
    """Delivers for one webhook until cancelled; then `close` it."""

    def __init__(self, name: str, config: WebhookConfig, store: WebhookStore) -> None:
        self.name = name
        self._config = config
        self._store = store
        self._wake = asyncio.Event()
        self._news = True
        self._post: WebhookPost | None = None
        self._hold: Hold | None = None
        self._begin(None)

    def _begin(self, hold: Hold | None) -> None:
        """Start from what the row says."""
        config = self._config
        patience = Patience(config.backoff.first, config.backoff.cap, config.give_up)
        self._hold = hold
        self._window = Window((0, 0) if hold is None else hold.cursor, patience)
        self._posting: set[asyncio.Task[None]] = set()
        self._aside: list[SetAside] = []
        self._delivered = 0
        self._error = None if hold is None else hold.disabled
        self._failing_since: float | None = None
        self._disabled = hold is not None and hold.disabled is not None
        self._asked = 0 if hold is None else hold.retries_asked
        self._missed = 0 if hold is None else hold.missed
        self._again_at = time.monotonic()
        self._again: asyncio.Task[None] | None = None
        self._noted: Progress | None = None
        self._noted_at = time.monotonic()

    # ---- what others ask

    def wake(self) -> None:
        """There may be something new in the database."""
        self._news = True
        self._wake.set()

    def asked(self) -> None:
        """An operator may have asked for a try at once: the next note tells."""
        self._noted_at = float("-inf")
        self._wake.set()

    def status(self) -> WebhookStatus | None:
        """How it is; None: another node delivers, or nobody yet."""
        if self._hold is None:
            return None
        return WebhookStatus(
            name=self.name,
            failing=self._disabled or self._window.failures >= DOWN_AFTER,
            disabled=self._disabled,
            # One that is disabled reads nothing, so that nobody knows what waits.
            behind=None if self._disabled else round(self._window.behind(datetime.now(UTC)), 1),
        )

    def trouble(self) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        if self._hold is None:
            return None
        parts = []
        if self._disabled:
            parts.append(
                f"is disabled: {self._error}; once its receiver wants events again: shardd webhook retry {self.name}"
            )
        elif self._window.failures >= DOWN_AFTER and self._failing_since is not None:
            parts.append(f"has failed for {_duration(time.monotonic() - self._failing_since)}: {self._error}")
        elif (behind := self._window.behind(datetime.now(UTC))) >= BEHIND:
            parts.append(f"is {_duration(behind)} behind: its receiver takes events more slowly than they happen")
        if lost := self._missed - self._hold.missed:
            parts.append(f"did not deliver {lost} events before events.keep or events.most ended their time")
        return f"webhook {self.name} {'; it '.join(parts)}" if parts else None

    # ---- life

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._post = WebhookPost(self._config)
        while True:
            try:
                if self._hold is None:
                    await self._take()
                else:
                    await self._step()
            except DatabaseError as error:
                log.debug("no look at the outbox", action="webhook", webhook=self.name, error=str(error))
                await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Note how far it is and let another node deliver; after `run` has ended."""
        await end_tasks(self._tasks())
        if self._hold is not None:
            with suppress(DatabaseError):  # it runs out by itself
                if await self._note():
                    await self._store.release(self.name, self._hold.epoch)
        self._hold = None
        if self._post is not None:
            await self._post.close()

    async def _take(self) -> None:
        config = self._config
        digest = hashlib.sha256("\n".join([config.url, *config.kinds]).encode()).hexdigest()
        hold = await self._store.take(self.name, config.kinds, digest)
        if hold is None:
            await self._rest(self._store.ttl / RENEWALS)
            return
        self._begin(hold)
        log.info("webhook taken", action="webhook", webhook=self.name, epoch=hold.epoch)

    async def _step(self) -> None:
        """Read what is new, post what may go, note how far it is, and wait for the next of these."""
        self._wake.clear()
        if not self._disabled:
            await self._read()
            self._start(time.monotonic())
        if not await self._note_if_due():
            log.warning("another node has taken the webhook", action="webhook", webhook=self.name)
            await end_tasks(self._tasks())
            self._begin(None)
            return
        now = time.monotonic()
        soon = [now + POLL_EVERY]
        if not self._disabled and len(self._posting) < self._config.concurrency:
            due = self._window.next_time(now)
            soon += [] if due is None else [due]
        await self._rest(max(0.01, min(soon) - now))

    async def _rest(self, seconds: float) -> None:
        if not await wait_for_event(self._wake, seconds):
            self._news = True

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*self._posting, *([] if self._again is None else [self._again])]

    # ---- delivering

    async def _read(self) -> None:
        room = self._window.room()
        if not self._news or room < self._config.concurrency:
            return
        found, end = await self._store.read(self._window.end, self._config.kinds, room)
        self._window.add(found, end)
        self._news = len(found) == room

    def _start(self, now: float) -> None:
        for entry in self._window.next_entries(now)[: self._config.concurrency - len(self._posting)]:
            entry.busy = True
            task = asyncio.create_task(self._deliver(entry))
            self._posting.add(task)
            task.add_done_callback(self._posted)
        if self._again is None and now >= max(self._again_at, self._window.resting_until):
            self._again_at = float("inf")
            self._again = asyncio.create_task(self._deliver_again())
            self._again.add_done_callback(self._posted)

    def _posted(self, task: asyncio.Task[None]) -> None:
        self._posting.discard(task)
        if task is self._again:
            self._again = None
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a webhook's delivery failed", action="defect", webhook=self.name, exc_info=error)

    async def _deliver(self, entry: Entry) -> None:
        answer = await self._answer(entry.event)
        if answer.meaning is Meaning.TAKEN:
            if self._window.failures >= DOWN_AFTER:
                log.info("webhook delivers again", action="webhook", webhook=self.name)
            self._window.taken(entry)
            self._delivered += 1
            self._error = self._failing_since = None
            return
        self._error = answer.error
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        given_up = self._window.failed(
            entry,
            answer.error,
            time.monotonic(),
            time.time(),
            refused=answer.meaning is Meaning.REFUSED,
            retry_after=answer.retry_after,
        )
        self._aside += given_up
        if not self._window.failures:
            self._error = self._failing_since = None
        self._tell_failure(entry, answer, given_up)

    def _tell_failure(self, entry: Entry, answer: Answer, given_up: list[SetAside]) -> None:
        told = {"action": "webhook", "webhook": self.name, "error": answer.error}
        if answer.meaning is Meaning.GONE and not self._disabled:
            self._disabled = True
            log.error("webhook is disabled", **told)
        elif self._window.failures == DOWN_AFTER:
            log.warning("webhook fails", **told)
        else:
            log.debug("webhook did not take an event", **told, event_id=entry.event.id, tries=entry.tries)
        for one in given_up:
            log.warning("event set aside", **told, event_id=one.event.id, kind=one.event.kind, tries=one.tries)

    async def _deliver_again(self) -> None:
        """Send what an operator wants sent once more, one after the other."""
        try:
            while events := await self._store.to_send_again(self.name, AGAIN_MOST):
                for event in events:
                    answer = await self._answer(event)
                    if answer.meaning is Meaning.TAKEN:
                        self._delivered += 1
                        await self._store.forget_failures(self.name, [event.id])
                    elif answer.meaning is Meaning.REFUSED:
                        await self._store.set_aside(self.name, [SetAside(event, 1, answer.error)])
                    else:
                        self._again_at = time.monotonic() + AGAIN_EVERY
                        return
        except DatabaseError as error:
            log.debug("set-aside events not sent", action="webhook", webhook=self.name, error=str(error))
            self._again_at = time.monotonic() + AGAIN_EVERY

    async def _answer(self, event: Event) -> Answer:
        assert self._post is not None  # `run` makes it
        return await self._post.post(event)

    # ---- noting how far it is

    def _progress(self) -> Progress:
        now = time.monotonic()
        due = self._window.next_time(now) if self._window.failures else None
        return Progress(
            cursor=self._window.cursor,
            delivered=self._delivered,
            dropped=len(self._aside),
            failures=max(self._window.failures, int(self._disabled)),
            error=self._error,
            wait=None if due is None or self._disabled else due - now,
            disabled=self._disabled,
        )

    async def _note_if_due(self) -> bool:
        """Whether the row is still held, as far as is known."""
        since, progress = time.monotonic() - self._noted_at, self._progress()
        if since >= self._store.ttl / RENEWALS:
            return await self._note()
        if since < SAVE_EVERY or (self._noted is not None and _same(progress, self._noted)):
            return True
        return await self._note()

    async def _note(self) -> bool:
        assert self._hold is not None  # nothing is done without it
        progress, aside = self._progress(), list(self._aside)
        if aside:
            await self._store.set_aside(self.name, aside)
        answer = await self._store.save(self.name, self._hold.epoch, progress)
        if answer is None:
            return False
        self._noted, self._noted_at = progress, time.monotonic()
        self._delivered -= progress.delivered
        del self._aside[: len(aside)]
        asked, missed = answer
        if missed > self._missed:
            text = "events went before they were delivered"
            log.warning(text, action="webhook", webhook=self.name, missed=missed - self._missed)
            self._missed = missed
        if asked != self._asked:
            self._asked = asked
            self._disabled = False
            self._again_at = time.monotonic()
            self._window.hurry()
            self._wake.set()
        return True


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _same(progress: Progress, noted: Progress) -> bool:
    """Whether a note would say nothing new: a cursor moves with every transaction of anybody, and a wait by itself."""
    return (
        not progress.delivered
        and not progress.dropped
        and (progress.failures, progress.error, progress.disabled) == (noted.failures, noted.error, noted.disabled)
    )
