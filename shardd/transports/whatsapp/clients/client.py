"""One client: one object of the library, from its connect to its end, never used again.

A refresh makes a new object, so this one only opens, works, and closes for good. It has a uuid of its own (the library keys
its clients by phone number, so that an old object's finalizer would stop a new one), and its bytes pass the egress gate,
which reports when its connection is lost. Every wait has a deadline or ends with the connection: a thread that hangs in the
library is freed by cutting its sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4

from neonize.aioze import events as library_events
from neonize.exc import NeonizeError

from shardd.errors import ErrorClass
from shardd.logs import get_logger
from shardd.persons import GROUP_SERVER
from shardd.proxies import Proxy
from shardd.tasks import uncancelled
from shardd.transports.egress.gate import Gate, resolve
from shardd.transports.whatsapp.clients.draining import Callbacks
from shardd.transports.whatsapp.clients.library import (
    CHAT_HOST,
    JID,
    WRITE_TIMEOUT,
    LibraryLock,
    NewAClient,
    connect,
    parse_jid,
)
from shardd.transports.whatsapp.clients.receipts import Receipts
from shardd.transports.whatsapp.clients.recent import RecentMessages, unanswered
from shardd.transports.whatsapp.messages import failures
from shardd.transports.whatsapp.messages.copies import Copies
from shardd.transports.whatsapp.messages.failures import Failure, RestrictionReport
from shardd.transports.whatsapp.messages.incoming import COMPLETE, Backlog
from shardd.urls import scrub_urls

log = get_logger(__name__)

DIALS: Final = 2
"""Dials of one refresh: WhatsApp may ask for one more (stream error 515)."""
EXPLAIN: Final = 0.5
"""Seconds that an event may arrive after the end of the connection that it explains."""
GRACEFUL: Final = 1.0
"""Seconds for an orderly disconnect, before the sockets are cut."""
CONFIRMED: Final = 0.25
"""Seconds for what a client still confirms once it hears nothing more."""
END_TIMEOUT: Final = 10.0
"""Seconds in which a client whose sockets are cut must have ended."""

_FAILURES: Final[tuple[tuple[Any, Callable[[Any], Failure]], ...]] = (
    (library_events.LoggedOutEv, failures.logged_out),
    (library_events.StreamReplacedEv, failures.replaced),
    (library_events.TemporaryBanEv, failures.banned),
    (library_events.ClientOutdatedEv, failures.outdated),
    (library_events.ConnectFailureEv, failures.refused),
    (library_events.StreamErrorEv, failures.stream_error),
)

UNANSWERED: Final = (ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.SERVER)

LOST: Final = Failure("the connection to WhatsApp was lost", error_class=ErrorClass.CONNECTION)
UNREADABLE: Final = Failure("nobody could have read its message", error_class=ErrorClass.RECIPIENT)

T = TypeVar("T")


class ClientFailedError(Exception):
    """A client could not be opened."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class NoReaderError(Exception):
    """No device of the recipient could be encrypted for; nothing left. `reason`: the library's words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Listener(Protocol):
    """Receives what a client learns outside a call."""

    def ended(self, client: Client, failure: Failure) -> None:
        """An open client failed and has to be closed. Called again only with a failure that names a device state."""

    def receipt(self, client: Client, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        """A message was `delivered` or `read`, or is `unreadable`; `at` in POSIX seconds.

        `unreadable`: a device of the recipient could not decrypt it, and this client cannot encrypt it again. `by`: the device's
        index; 0 is the phone.
        """

    def message(self, client: Client, event: Any) -> Callable[[], None] | None:
        """A message event, in a thread of the library; returns what remains to be done in the event loop."""

    @property
    def wants_history(self) -> bool:
        """Whether `history` is called."""

    def history(self, client: Client, event: Any) -> Callable[[], None] | None:
        """A part of the history; see `message`."""

    def lost_event(self, client: Client, text: str) -> None:
        """An event of the library could not be read."""

    def restriction(self, client: Client, report: RestrictionReport) -> None:
        """WhatsApp reported whether the account may write to new contacts."""


class Client:
    """One neonize client. Open it once, use it while `alive`, close it always."""

    def __init__(
        self,
        device_id: str,
        session: str,
        *,
        dsn: str,
        gate: Gate,
        library_lock: LibraryLock,
        proxy: Proxy | None,
        listener: Listener,
        pooler: str | None = None,
        restricted: bool = False,
    ) -> None:
        """`session`: a JID whose row has just been seen in the store; `dsn`: the store's URL for the library.

        `restricted`: the account may not write to new contacts now; then the end of that is listened for.
        """
        self.pooler = pooler
        """The DSN of the PgBouncer that `dsn` leads through."""
        self._restricted = restricted
        self.device_id = device_id
        self.session = session
        self.handle = NewAClient(dsn, jid=parse_jid(session))
        self.handle.uuid = uuid4().hex.encode()
        self.handle._stop_finalizer.detach()  # noqa: SLF001 - it would call into the library at any time, for any client
        self.failure: Failure | None = None
        self.hidden_ids: dict[str, JID] = {}
        """LIDs by JID, as far as they were asked for."""
        self.egress = gate.admit(CHAT_HOST, on_lost=self._lost, proxy=proxy, dials=DIALS)
        self._library_lock = library_lock
        self._listener = listener
        self._open = False
        self._running: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._copies: Copies | None = None
        self._unreadable: asyncio.Future[None] = self._loop.create_future()
        self._logged_in: asyncio.Future[None] = self._loop.create_future()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._backlog = Backlog()
        self._callbacks = Callbacks()
        self._deaf = False
        self._refusal: Failure | None = None
        """Of the login, as the library logs it."""
        self._receipts = Receipts(device_id, partial(listener.receipt, self))
        self._calls: set[asyncio.Future[Any]] = set()
        self._closing: asyncio.Task[bool] | None = None
        self._register()

    @property
    def alive(self) -> bool:
        """Logged in, and not known to have lost its connection."""
        return self._open and self.failure is None and self._closing is None and not self.egress.lost

    @property
    def recent(self) -> RecentMessages:
        """The messages that it can still encrypt again."""
        return self._receipts.recent

    @property
    def is_unanswered(self) -> bool:
        """Its login had no answer of WhatsApp, or an error of the server's own. Not: its proxy did not reach WhatsApp."""
        by_proxy = self.egress.proxy is not None and not self.egress.reached
        return self.failure is not None and self.failure.error_class in UNANSWERED and not by_proxy

    def silent_for(self) -> float:
        """Seconds since the server was last heard."""
        heard = self.egress.last_inbound
        return float("inf") if heard is None else asyncio.get_running_loop().time() - heard

    async def open(self, timeout: float, dialled: Callable[[], None] = lambda: None) -> None:
        """Connect and wait until logged in. Raises ClientFailedError; the client must be closed then, too.

        `timeout`: seconds, once the library's lock is held, for which each other one has WRITE_TIMEOUT at most. `dialled`: called
        when its connection begins, or could not for that time; up to then only one client opens at a time.
        """
        loop = asyncio.get_running_loop()
        async with self._library_lock.write():
            end = loop.time() + timeout
            # The library goes on without who is cancelled, so the lock is kept until it has written.
            running = await uncancelled(self._dial())
        if not running.done():  # one that failed has measured nothing, and its turn is about to end
            dialled()
        await _first(running, self._logged_in, self._failed, timeout=max(0.0, end - loop.time()))
        if self.failure is None and (running.done() or not self._logged_in.done()):
            self._fail(self._unexplained(timeout))
        if self.failure is not None:
            raise ClientFailedError(self.failure)
        self._open = True
        self.egress.seal()

    async def _dial(self) -> asyncio.Task[None]:
        self._running = running = await connect(self.handle, self.egress.url, self._logged, verbose=self._restricted)
        running.add_done_callback(self._reports_ended)
        # Once it dials, it has written all that it writes.
        await _first(running, self.egress.dialled, timeout=WRITE_TIMEOUT)
        return running

    async def caught_up(self) -> None:
        """Wait, for a bounded time, until the listener has the messages that arrived before the login."""
        await self._backlog.wait()

    async def heard_all(self, timeout: float = COMPLETE) -> bool:
        """As `caught_up`, for up to `timeout` seconds; False: more may come. True also if the client has failed meanwhile."""
        return await self._backlog.wait_for_end(timeout)

    async def explained(self) -> None:
        """If its connection was lost a moment ago: wait until `failure` says why."""
        if self.egress.lost and self.failure is None:
            await _first(self._failed, timeout=2 * EXPLAIN)

    async def probe(self, timeout: float) -> bool:
        """Whether the server answers: one small round trip, bounded by `timeout` seconds."""
        try:
            await self.call(lambda: self.handle.set_passive(False), timeout)
        except (TimeoutError, ClientFailedError, NeonizeError):
            return False
        return self.alive

    async def call(self, step: Callable[[], Awaitable[T]], timeout: float) -> T:
        """Call the library for something that hands over no message. Raises TimeoutError, ClientFailedError or NeonizeError."""
        working = await self._begin(step)
        await _first(working, self._failed, timeout=timeout)
        if working.done():
            return working.result()
        if self.failure is not None:
            raise ClientFailedError(self.failure)
        raise TimeoutError

    async def send(self, to: JID, message: Any, copies: Copies, timeout: float) -> str:
        """Hand a message over; returns its id once the server has taken it. `copies`: learns who can read it.

        Raises ClientFailedError when nothing left, NoReaderError, NeonizeError with the library's text, or TimeoutError.
        Nothing of it leaves afterwards: a send without an answer is ended by closing the client, which makes the library report
        how far it got.
        """
        sending: asyncio.Future[Any] | None = None
        self._copies = copies
        try:
            sending = await self._begin(lambda: self._hand_over(to, message))
            await _first(sending, self._unreadable, timeout=timeout)
            if copies.unreadable:
                self._fail(UNREADABLE)
                await self.close()
                raise NoReaderError(copies.reason)
            if not sending.done():
                self._fail(
                    Failure(f"WhatsApp did not answer within {timeout:g} seconds", error_class=ErrorClass.TIMEOUT)
                )
                await self.close()
        except asyncio.CancelledError:
            before = self.failure
            if sending is None or not sending.done():
                self.abandon("a send was cancelled before its answer arrived")
            if copies.unreadable:
                # It was blocked before it left; its close goes on by itself.
                if before is None or before is UNREADABLE:
                    raise NoReaderError(copies.reason) from None
                raise ClientFailedError(before) from None
            raise
        finally:
            self._copies = None
        if copies.unreadable:
            # It was still asking for keys when it was closed.
            raise ClientFailedError(self.failure or LOST)
        if not sending.done():
            raise TimeoutError
        return str(sending.result().ID)

    def abandon(self, why: str) -> None:
        """End what hangs in the library by cutting its connections; the client cannot be used afterwards."""
        self._fail(Failure(why, error_class=ErrorClass.TIMEOUT))
        self.egress.kill()

    async def close(self) -> bool:
        """Close for good and wait for the end; True when the library has released its thread. Idempotent."""
        if self._closing is None:
            self._backlog.finish()
            self._closing = asyncio.create_task(self._close())
        return await asyncio.shield(self._closing)

    # ---- inside

    def _register(self) -> None:
        on = self.handle.event
        on.execute = self._guarded(on.execute)
        for kind, read in _FAILURES:
            on(kind)(self._handler(partial(self._heard, read)))
        on(library_events.ConnectedEv)(self._handler(lambda _: resolve(self._logged_in)))
        on(library_events.DisconnectedEv)(self._handler(lambda _: None))
        on(library_events.ReceiptEv)(self._handler(self._receipts.received))
        on(library_events.MessageEv)(self._message)
        if self._listener.wants_history:
            on(library_events.HistorySyncEv)(self._history)
        on(library_events.OfflineSyncCompletedEv)(self._handler(self._backlog.finish))

    def _heard(self, read: Callable[[Any], Failure], event: Any) -> None:
        self._fail(read(event))

    @staticmethod
    def _handler(act: Callable[[Any], None]) -> Callable[[Any, Any], Awaitable[None]]:
        async def handle(_: Any, event: Any) -> None:
            act(event)

        return handle

    def _logged(self, line: str) -> None:
        """Called in a thread of the library, which goes on when this returns: a message that no device can read must not leave.

        Once it had left, the library would answer a phone that cannot read it with a copy, beside the one of the next try.
        """
        if (refusal := failures.login_refusal(line)) is not None:
            self._refusal = refusal
        if (refused := unanswered(line)) is not None:
            self._loop.call_soon_threadsafe(self._receipts.not_answered, *refused)
        if self._restricted and (report := failures.restriction_report(line)) is not None:
            self._loop.call_soon_threadsafe(self._listener.restriction, self, report)
        copies = self._copies
        if copies is None:
            return
        copies.heard(line)
        if copies.unreadable:
            self.egress.block()
            self._loop.call_soon_threadsafe(resolve, self._unreadable)

    async def _hand_over(self, to: JID, message: Any) -> Any:
        with self._receipts.sending():
            sent = await self.handle.send_message(to, message)
            self.recent.add(str(sent.ID), asyncio.get_running_loop().time(), group=to.Server == GROUP_SERVER)
            return sent

    def _message(self, _: Any, event: Any) -> Coroutine[Any, Any, None]:
        """Called in a thread of the library, which schedules the coroutine in the event loop and does not wait for it."""
        return _finish(self._listener.message(self, event))

    def _history(self, _: Any, event: Any) -> Coroutine[Any, Any, None]:
        """Called as `_message` is."""
        return _finish(self._listener.history(self, event))

    def _guarded(self, execute: Callable[..., None]) -> Callable[..., None]:
        """The library's callback, for every event. What it raises would only be printed: a message may be lost by it."""

        def call(uuid: Any, binary: Any, size: Any, code: Any) -> None:
            try:
                with self._callbacks.running():
                    execute(uuid, binary, size, code)
            except Exception as error:  # noqa: BLE001 - of the protobuf decoder, which has limits that the sender may exceed
                text = f"an event of device {self.device_id} cannot be read: {type(error).__name__}: {error}"
                self._loop.call_soon_threadsafe(self._listener.lost_event, self, text)

        return call

    def _reports_ended(self, running: asyncio.Task[None]) -> None:
        """The library has left the loop in which it reports the client's events.

        It does so by itself when it cannot encode one, such as a receipt of a type that it does not know (goneonize/main.go:
        `CallbackFunction`, where `proto.Marshal` refuses a message without a required field). The connection goes on, and with it
        the library confirms to WhatsApp what it can no longer report. So nothing more may come in; but the event itself must be
        confirmed, or it would end the next client, too.
        """
        if self._closing is not None:
            return
        reason = scrub_urls(str(_read(running) or "without a reason"))
        if not self._open and (self._refusal is not None or not failures.is_unencodable(reason)):
            return  # the login failed, which `open` reports
        self._deaf = True
        self.egress.drop_inbound()
        text = f"the library stopped to report the events of device {self.device_id} ({reason})"
        self._listener.lost_event(
            self, f"{text}: its client is replaced, messages to it that came in that moment may be lost"
        )
        self._fail(Failure(text, error_class=ErrorClass.CONNECTION))

    def _fail(self, failure: Failure) -> None:
        """The first reason counts, unless only this one names a device state."""
        first = self.failure is None
        if first or (self.failure is not None and self.failure.state is None and failure.state is not None):
            self.failure = failure
        resolve(self._failed)
        self._backlog.finish()
        if self._open and self._closing is None and (first or failure.state is not None):
            self._listener.ended(self, failure)

    def _lost(self) -> None:
        """The gate reports the connection lost; an event that explains it may follow."""
        asyncio.get_running_loop().call_later(EXPLAIN if self.failure is None else 0.0, self._explain)

    def _explain(self) -> None:
        if self.failure is None and self._closing is None:
            self._fail(Failure(self.egress.dial_error or LOST.text, error_class=ErrorClass.CONNECTION))

    def _unexplained(self, timeout: float) -> Failure:
        if self._running is not None and self._running.done() and not self._running.cancelled():
            error = self._running.exception()
            return self._refusal or Failure(
                self.egress.dial_error or f"the login ended: {scrub_urls(str(error or 'without a reason'))}",
                error_class=ErrorClass.CONNECTION,
            )
        reached = self.egress.last_inbound is not None
        text = "WhatsApp did not complete the login" if reached else "WhatsApp could not be reached"
        return Failure(self.egress.dial_error or f"{text} within {timeout:g} seconds", error_class=ErrorClass.TIMEOUT)

    async def _begin(self, step: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """Start a library call. Never while closing: many of its calls end the process when the client is gone."""

        def start() -> asyncio.Future[T]:
            if not self.alive:
                raise ClientFailedError(self.failure or LOST)
            working = asyncio.ensure_future(step())
            self._calls.add(working)
            working.add_done_callback(self._finished)
            return working

        return await self._library_lock.read(start)

    def _finished(self, call: asyncio.Future[Any]) -> None:
        self._calls.discard(call)
        _read(call)

    async def _close(self) -> bool:
        if self._running is not None and not self._open and self.failure is None:
            # Let the login finish: cut in the middle of the handshake, the library would wait 20 seconds.
            await _first(self._running, self._logged_in, self._failed, timeout=GRACEFUL)
        if self._deaf:
            await asyncio.sleep(CONFIRMED)
        if not self._open or self.failure is not None:
            self.egress.kill()  # there is no session to end, and a dial in progress blocks everything else
        if self._open:
            # Calls in flight end at once with this, and must have ended before `stop` forgets the client.
            leaving = await self._library_lock.read(lambda: asyncio.ensure_future(self.handle.disconnect()))
            ending = [leaving, *self._calls]
            await asyncio.wait(ending, timeout=GRACEFUL)
            self.egress.kill()
            await asyncio.wait(ending, timeout=END_TIMEOUT)
        if (
            self._running is not None
            and not self._running.done()
            and not await self._callbacks.drain(self.silent_for())
        ):
            text = f"device {self.device_id} was closed before all of its events were read: messages to it may be lost"
            self._listener.lost_event(self, text)
        ends = [await self._stop()]
        if self._running is not None:
            ends.append(self._running)
        await asyncio.wait(ends, timeout=END_TIMEOUT)
        ended = all(end.done() for end in ends)
        if not ended:
            log.error("client did not end: its thread is lost", action="client_stuck", device=self.device_id)
        elif any(map(_read, ends)):
            # It failed while it connected, perhaps after `stop` had found nothing to stop: the library still lists it.
            await self._stop()
        return ended

    async def _stop(self) -> asyncio.Future[None]:
        async with self._library_lock.write():
            stopping: asyncio.Future[None] = asyncio.ensure_future(self.handle.stop())
            await uncancelled(asyncio.wait([stopping], timeout=WRITE_TIMEOUT))
            return stopping


async def _finish(remaining: Callable[[], None] | None) -> None:
    if remaining is not None:
        remaining()


async def _first(*futures: asyncio.Future[Any], timeout: float) -> None:
    # As most calls are that only ask the library's memory, one is often done, and a wait is no small part of its CPU.
    if not any(future.done() for future in futures):
        await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _read(future: asyncio.Future[Any]) -> BaseException | None:
    """Retrieve a future's exception, or asyncio logs it as never retrieved."""
    with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
        return future.exception()
    return None
