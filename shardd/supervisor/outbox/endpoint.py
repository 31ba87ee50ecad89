"""One webhook: delivers events from the outbox to its receiver, at least once, and saves its progress.

Only the node that holds the webhook's row delivers. It posts what the window allows, saves its progress at most once a second,
and learns from the same statement whether it still holds the row. After a crash, events accepted since the last save are posted
again under the same ids; none is skipped, because progress is saved only after the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final

from shardd.config import WebhookConfig
from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.webhooks import Event, Hold, Progress, SetAside, WebhookStore
from shardd.supervisor.outbox.post import Answer, Meaning, WebhookPost
from shardd.supervisor.outbox.window import DOWN_AFTER, Entry, RetryPolicy, Window
from shardd.supervisor.services import Service
from shardd.supervisor.status import WebhookStatus
from shardd.tasks import TaskSet, wait_for_event

log = get_logger(__name__)

POLL_EVERY: Final = 0.5
"""Seconds between polls of the outbox: a notification may be lost, or come before the event can be read."""
SAVE_EVERY: Final = 1.0
"""Seconds between saves of the progress, at least."""
RENEWALS: Final = 3
"""How often the row is renewed within the time for which it is held."""
BEHIND: Final = 600.0
"""Seconds that an event may wait for a receiver that accepts events before that is reported."""
RESEND_CHUNK: Final = 50
"""Events that were set aside and are read at once to be posted again."""
RESEND_EVERY: Final = 60.0
"""Seconds between attempts to post these while the receiver fails."""
RESTART_AFTER: Final = 60.0
"""Seconds until an endpoint starts again that a defect has ended."""


class Endpoint(Service):
    """Delivers for one webhook. A defect in it must not stop the sending of messages: it ends only this run of the endpoint."""

    def __init__(self, name: str, config: WebhookConfig, store: WebhookStore) -> None:
        self.name = name
        self.config = config
        self._store = store
        self._wake = asyncio.Event()
        self._new_events = True
        self._post: WebhookPost | None = None
        self._tasks = TaskSet()
        self._begin(None)

    def _begin(self, hold: Hold | None) -> None:
        """Start with the progress in the row."""
        config = self.config
        policy = RetryPolicy(config.backoff.first, config.backoff.cap, config.give_up)
        self._hold = hold
        self._window = Window((0, 0) if hold is None else hold.cursor, policy)
        self._posting = 0
        self._aside: list[SetAside] = []
        # In all: a save whose answer was lost, or not awaited, may be repeated.
        self._delivered = 0 if hold is None else hold.delivered
        self._dropped = 0 if hold is None else hold.dropped
        self._error = None if hold is None else hold.disabled
        self._failing_since: float | None = None
        self._disabled = hold is not None and hold.disabled is not None
        self._asked = 0 if hold is None else hold.retries_asked
        self._missed = 0 if hold is None else hold.missed
        self._resend_at = time.monotonic()
        self._resending = False
        self._saved: Progress | None = None
        self._saved_at = time.monotonic()

    # ---- for `Webhooks`

    def wake(self) -> None:
        """There may be new events."""
        self._new_events = True
        self._wake.set()

    def asked(self) -> None:
        """An operator may have asked to retry at once: the next save shows it."""
        self._saved_at = float("-inf")
        self._wake.set()

    def status(self) -> WebhookStatus | None:
        """None: this node does not deliver for it."""
        if self._hold is None:
            return None
        return WebhookStatus(
            name=self.name,
            failing=self._disabled or self._window.failures >= DOWN_AFTER,
            disabled=self._disabled,
            behind=None if self._disabled else round(self._window.behind(datetime.now(UTC)), 1),
        )

    def note(self) -> str | None:
        """What is wrong, in a sentence; None: it delivers."""
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
            parts.append(f"is {_duration(behind)} behind: its receiver accepts events more slowly than they occur")
        if lost := self._missed - self._hold.missed:
            parts.append(f"did not deliver {lost} events before they were deleted (events.keep, events.most)")
        return f"webhook {self.name} {'; it '.join(parts)}" if parts else None

    # ---- lifecycle

    async def serve(self) -> None:
        """Deliver while this node holds the row, and try to take it while another does."""
        while True:
            try:
                await self._run()
            except Exception as error:
                log.critical("a webhook failed", action="defect", webhook=self.name, exc_info=error)
                await self.close()
                await asyncio.sleep(RESTART_AFTER)

    async def close(self) -> None:
        """Cancel what is being posted, save the progress and release the row."""
        await self._tasks.end()
        if self._hold is not None:
            with suppress(DatabaseError):  # the row is free once `ttl` has passed
                if await self._save():
                    await self._store.release(self.name, self._hold.epoch)
        self._hold = None
        if self._post is not None:
            await self._post.close()

    async def _run(self) -> None:
        self._post = WebhookPost(self.config)
        while True:
            try:
                if self._hold is None:
                    await self._take()
                else:
                    await self._step()
            except DatabaseError as error:
                log.debug("outbox poll failed", action="webhook", webhook=self.name, error=str(error))
                await asyncio.sleep(1.0)

    async def _take(self) -> None:
        config = self.config
        digest = hashlib.sha256("\n".join([config.url, *config.kinds]).encode()).hexdigest()
        hold = await self._store.take(self.name, config.kinds, digest)
        if hold is None:
            await self._wait(self._store.ttl / RENEWALS)
            return
        self._begin(hold)
        log.info("webhook taken", action="webhook", webhook=self.name, epoch=hold.epoch)

    async def _step(self) -> None:
        """Read new events, post what may be posted, save the progress, and wait for the next of these."""
        self._wake.clear()
        if not self._disabled:
            await self._read()
            self._start(time.monotonic())
        if not await self._save_if_due():
            log.warning("another node has taken the webhook", action="webhook", webhook=self.name)
            await self._tasks.end()
            self._begin(None)
            return
        now = time.monotonic()
        next_step = now + POLL_EVERY
        if not self._disabled and self._posting < self.config.concurrency:
            next_step = min(next_step, self._window.next_time(now) or next_step)
        await self._wait(max(0.01, next_step - now))

    async def _wait(self, seconds: float) -> None:
        if not await wait_for_event(self._wake, seconds):
            self._new_events = True

    # ---- delivering

    async def _read(self) -> None:
        room = self._window.room()
        if not self._new_events or room < self.config.concurrency:
            return
        found, end = await self._store.read(self._window.end, self.config.kinds, room)
        self._window.add(found, end)
        self._new_events = len(found) == room

    def _start(self, now: float) -> None:
        for entry in self._window.next_entries(now)[: self.config.concurrency - self._posting]:
            entry.busy = True
            self._posting += 1
            self._tasks.start(self._deliver(entry), self._delivery_failed)
        if not self._resending and now >= max(self._resend_at, self._window.retry_after):
            self._resending, self._resend_at = True, float("inf")
            self._tasks.start(self._resend(), self._delivery_failed)

    def _delivery_failed(self, error: Exception) -> None:
        log.critical("a webhook's delivery failed", action="defect", webhook=self.name, exc_info=error)

    async def _deliver(self, entry: Entry) -> None:
        try:
            self._answered(entry, await self._answer(entry.event))
        finally:
            self._posting -= 1
            self._wake.set()

    def _answered(self, entry: Entry, answer: Answer) -> None:
        if answer.meaning is Meaning.ACCEPTED:
            if self._window.failures >= DOWN_AFTER:
                log.info("webhook delivers again", action="webhook", webhook=self.name)
            self._window.accepted(entry)
            self._delivered += 1
            self._error = self._failing_since = None
            return
        self._error = answer.error
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        set_aside = self._window.failed(
            entry,
            answer.error,
            time.monotonic(),
            time.time(),
            refused=answer.meaning is Meaning.REFUSED,
            retry_after=answer.retry_after,
        )
        self._aside += set_aside
        if not self._window.failures:
            self._error = self._failing_since = None
        self._log_failure(entry, answer, set_aside)

    def _log_failure(self, entry: Entry, answer: Answer, set_aside: list[SetAside]) -> None:
        fields = {"action": "webhook", "webhook": self.name, "error": answer.error}
        if answer.meaning is Meaning.GONE and not self._disabled:
            self._disabled = True
            log.error("webhook is disabled", **fields)
        elif self._window.failures == DOWN_AFTER:
            log.warning("webhook fails", **fields)
        else:
            log.debug("webhook did not accept an event", **fields, event_id=entry.event.event_id, tries=entry.tries)
        for one in set_aside:
            log.warning("event set aside", **fields, event_id=one.event.event_id, kind=one.event.kind, tries=one.tries)

    async def _resend(self) -> None:
        """Post the events that an operator wants posted again, one after the other."""
        try:
            while events := await self._store.to_send_again(self.name, RESEND_CHUNK):
                for event in events:
                    answer = await self._answer(event)
                    if answer.meaning is Meaning.ACCEPTED:
                        self._delivered += 1
                        await self._store.forget_failures(self.name, [event.id])
                    elif answer.meaning is Meaning.REFUSED:
                        await self._store.set_aside(self.name, [SetAside(event, 1, answer.error)])
                    else:
                        self._resend_at = time.monotonic() + RESEND_EVERY
                        return
        except DatabaseError as error:
            log.debug("set-aside events not sent", action="webhook", webhook=self.name, error=str(error))
            self._resend_at = time.monotonic() + RESEND_EVERY
        finally:
            self._resending = False
            self._wake.set()

    async def _answer(self, event: Event) -> Answer:
        assert self._post is not None  # set by `_run`
        return await self._post.post(event)

    # ---- saving the progress

    def _progress(self) -> Progress:
        now = time.monotonic()
        due = self._window.next_time(now) if self._window.failures else None
        return Progress(
            cursor=self._window.cursor,
            delivered=self._delivered,
            dropped=self._dropped + len(self._aside),
            failures=max(self._window.failures, int(self._disabled)),
            error=self._error,
            wait=None if due is None or self._disabled else due - now,
            disabled=self._disabled,
        )

    async def _save_if_due(self) -> bool:
        """Whether the row is still held, as far as known."""
        since, progress = time.monotonic() - self._saved_at, self._progress()
        if since >= self._store.ttl / RENEWALS:
            return await self._save()
        if since < SAVE_EVERY or (self._saved is not None and _unchanged(progress, self._saved)):
            return True
        return await self._save()

    async def _save(self) -> bool:
        assert self._hold is not None  # else nothing is delivered
        progress, aside = self._progress(), list(self._aside)
        if aside:
            await self._store.set_aside(self.name, aside)
        answer = await self._store.save(self.name, self._hold.epoch, progress)
        if answer is None:
            return False
        self._saved, self._saved_at = progress, time.monotonic()
        self._dropped += len(aside)
        del self._aside[: len(aside)]
        asked, missed = answer
        if missed > self._missed:
            text = "events were deleted before they were delivered"
            log.warning(text, action="webhook", webhook=self.name, missed=missed - self._missed)
            self._missed = missed
        if asked != self._asked:
            self._asked = asked
            self._disabled = False
            self._resend_at = time.monotonic()
            self._window.retry_now()
            self._wake.set()
        return True


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _unchanged(progress: Progress, saved: Progress) -> bool:
    """Whether saving would change nothing of interest: a cursor moves with every transaction, and a wait with time."""
    of_interest = attrgetter("delivered", "dropped", "failures", "error", "disabled")
    return bool(of_interest(progress) == of_interest(saved))
