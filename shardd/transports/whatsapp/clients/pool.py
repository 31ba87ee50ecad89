"""get_or_refresh: a healthy client for a device, or the reason why there is none.

Healthy means logged in, with a server that was heard a moment ago. A client that was silent for longer is probed with one
small round trip; one that does not answer, or that lost its connection, is replaced: under the lock of its device the old one
is closed and its end awaited, the session's row is read (connecting without it ends the process), and a new one connects, a
few at a time. Nothing runs per device in between: one sweep over all devices closes clients as `closing` chooses, and only while
clients are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shardd.errors import DatabaseError, DeviceUnavailableError, ErrorClass
from shardd.ipc import DeviceSpec
from shardd.logs import get_logger
from shardd.proxies import Proxy, parse_proxy
from shardd.states import DeviceState
from shardd.tasks import TaskSet, wait_for_event
from shardd.transports.base import Events
from shardd.transports.egress.gate import Gate
from shardd.transports.whatsapp.clients.client import Client, ClientFailedError
from shardd.transports.whatsapp.clients.closing import LOOKS, Budget, Choice, OpenClient, choose
from shardd.transports.whatsapp.clients.library import LibraryLock
from shardd.transports.whatsapp.messages.arrivals import Arrivals
from shardd.transports.whatsapp.messages.failures import Failure, RestrictionReport
from shardd.transports.whatsapp.messages.recipients import Restrictions
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore

if TYPE_CHECKING:
    from shardd.config.transports.whatsapp import WhatsappConfig

log = get_logger(__name__)

HOLD: Final = 1.0
"""Seconds between prepare and deliver in which a client is not closed."""
CONNECT_COST: Final = 1.0
"""Seconds of a connect that count for `max_connecting`: after that it only waits for the network."""
BUSY_RETRY: Final = 1.0
"""Retry after, in seconds, for a device that this worker had no room for: it has no error, so the wait does not grow."""
PRESENCE_SHARE: Final = 0.7
"""Of `visit_every`: a login shows the presence if the last one is longer ago. A visit comes later than that."""
GAVE_WAY: Final = "the visit gave way to a message, because all clients of this worker are in use (max_open_clients)"
CUT_SHORT: Final = "no presence was shown, because the client was closed before it had heard all that waited"
NOT_USED: Final = float("-inf")
CLOSED_AT_ONCE: Final = 4
"""Clients that one sweep closes concurrently."""


@dataclass(eq=False)
class ClientSlot:
    """A device's place in the pool: its lock, its client if there is one, and when that was used. Times are the event loop's.

    Made once for each device and never removed: a task may be waiting for its lock.
    """

    device_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: Client | None = None
    in_use: int = 0
    used_at: float = 0.0
    session: str | None = None
    digest: str | None = None
    """Of the session's keys."""
    gone: Failure | None = None
    """What ended the session, until the device has another or is paired again."""
    presence_at: float | None = None
    attended: Client | None = None
    """The client that hears what waited for it; see `Clients._attend`."""
    visited_since: float | None = None
    """When it was used before a visit, if only that uses it now."""
    _held_until: float = 0.0

    def touch(self) -> None:
        """It was used just now."""
        self.used_at, self.visited_since = asyncio.get_running_loop().time(), None

    def hold(self) -> None:
        """It is about to be used: do not close it for a moment."""
        self._held_until = asyncio.get_running_loop().time() + HOLD

    def release(self) -> None:
        """A use is over."""
        self.in_use -= 1
        self._held_until = 0.0
        self.touch()

    def facts(self) -> OpenClient | None:
        """What is known about its client; None: it has none."""
        if self.client is None:
            return None
        busy = bool(self.in_use) or self.lock.locked() or self._held_until > asyncio.get_running_loop().time()
        undelivered, at = self.client.recent.undelivered()
        return OpenClient(self.device_id, self.used_at, busy, self.attended is not None, undelivered, at)


class Clients:
    """All clients of one worker."""

    def __init__(
        self,
        settings: WhatsappConfig,
        gate: Gate,
        store: SessionStore,
        events: Events,
        arrivals: Arrivals,
        *,
        restrictions: Restrictions,
    ) -> None:
        self.connects = 0
        self._settings = settings
        self._gate = gate
        self._library_lock = LibraryLock()
        self._store = store
        self._events = events
        self._arrivals = arrivals
        self._restrictions = restrictions
        self._slots: dict[str, ClientSlot] = {}
        self._reserved = 0
        self._freed = asyncio.Event()
        self._visit_over = asyncio.Event()
        self._choosing = asyncio.Lock()
        self._connecting = asyncio.Semaphore(settings.max_connecting)
        self.visit_turn = asyncio.Semaphore(max(1, settings.max_connecting // 2))
        """A visit holds one; it waits for that without its device's lock, so that its device's sends do not wait, too."""
        self._visits: set[asyncio.Task[Client]] = set()
        """Those that open a client."""
        self._sweeping: asyncio.Task[None] | None = None
        self._retiring = TaskSet()
        self._attending = TaskSet()
        self._closed = False

    @property
    def open_clients(self) -> int:
        """Clients that are open, opening or closing."""
        return self._reserved

    async def get_or_refresh(self, device: DeviceSpec) -> Client:
        """A healthy client of this device. Raises DeviceUnavailableError with the reason why there is none."""
        slot = self._slot(device.id)
        if (client := self._fresh(slot, device)) is not None:
            return client
        async with slot.lock:
            if (client := self._fresh(slot, device)) is not None:  # another task did it while we waited
                return client
            old = slot.client
            if old is not None and self._fits(old, device) and await old.probe(self._settings.probe_timeout):
                return old
            await self._close_client(slot)
            return await self._rebuild(slot, device)

    async def visit(self, device: DeviceSpec) -> None:
        """Open a client for a moment, to hear what was sent to it; `Events.visited` follows. Raises DeviceUnavailableError.

        It gives way to sends: it uses half of the logins at most (the caller holds a `visit_turn`), takes no room that a send
        waits for or whose client is still of use, and does not keep a client open.
        """
        slot = self._slot(device.id)
        before, used_at = slot.client, NOT_USED if slot.client is None else slot.used_at
        visit = asyncio.create_task(self.get_or_refresh(device))
        self._visits.add(visit)
        try:
            await asyncio.wait([visit])
        finally:
            self._visits.discard(visit)
            visit.cancel()
        if visit.cancelled():
            raise DeviceUnavailableError(GAVE_WAY, retry_after=BUSY_RETRY)
        client = visit.result()
        if client is before:
            await self._check_session(client)
        slot.visited_since = used_at
        self._attend(slot, client)

    def _attend(self, slot: ClientSlot, client: Client) -> None:
        """After a login, or at a visit: hear what waited, show the presence if that is due, and report."""
        if slot.attended is not client:

            def failed(error: Exception) -> None:
                log.error("visit failed", action="visit", device=slot.device_id, exc_info=error)
                note = f"unexpected: {type(error).__name__}: {error}"
                self._events.visited(slot.device_id, online=False, note=note)

            slot.attended = client
            self._attending.start(self._hear(slot, client), failed)

    async def _hear(self, slot: ClientSlot, client: Client) -> None:
        try:
            await client.heard_all()
            if client.alive:
                note, shown = None, self._presence_is_due(slot)
                if shown and (note := await client.show_presence(self._settings.answer_timeout)) is None:
                    slot.presence_at = asyncio.get_running_loop().time()
                self._events.visited(slot.device_id, online=True, presence=shown and note is None, note=note)
            else:
                self._report_end(slot, client)
        finally:
            if slot.attended is client:
                slot.attended = None
                if slot.visited_since is not None:
                    # Without a send since, it is closed as if the visit had not been.
                    slot.used_at, slot.visited_since = slot.visited_since, None
                    self._visit_over.set()

    def _report_end(self, slot: ClientSlot, client: Client) -> None:
        """Report a client that ended before it had heard all that waited. One that was opened for a send was online."""
        if client.failure is not None:
            self._events.visited(slot.device_id, online=False, note=client.failure.text)
        elif slot.attended is client and slot.visited_since is not None:
            self._events.visited(slot.device_id, online=False, note=GAVE_WAY)
        else:
            self._events.visited(slot.device_id, online=True, note=CUT_SHORT)

    def _presence_is_due(self, slot: ClientSlot) -> bool:
        every, now = self._settings.visit_every, asyncio.get_running_loop().time()
        return bool(every) and (slot.presence_at is None or now >= slot.presence_at + every * PRESENCE_SHARE)

    @asynccontextmanager
    async def in_use(self, client: Client) -> AsyncIterator[None]:
        """While a client is in use it is not closed to make room or as idle."""
        slot = self._slots[client.device_id]
        slot.in_use += 1
        try:
            yield
        finally:
            slot.release()
            self._freed.set()

    def hold(self, client: Client) -> None:
        """It is about to be used: do not close it for a moment."""
        self._slots[client.device_id].hold()

    async def close_device(self, device_id: str) -> None:
        """Close this device's client, and forget why it could not be opened."""
        slot = self._slots.get(device_id)
        if slot is not None:
            async with slot.lock:
                await self._close_client(slot)
                slot.gone = slot.presence_at = None

    async def close(self) -> None:
        """Close every client."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._attending.end()
        await asyncio.gather(*(self.close_device(device_id) for device_id in tuple(self._slots)))
        await self._retiring.end()

    # ---- client.Listener

    def ended(self, client: Client, failure: Failure) -> None:
        """An open client failed: close it now, so that nothing of it goes on in the background."""
        log.info("client ended", action="client_ended", device=client.device_id, reason=failure.text)
        if failure.state is not None:
            slot = self._slots[client.device_id]
            if slot.client is client:
                self._remember(slot, failure)
            self._events.device_changed(client.device_id, failure.state.value, failure.text, failure.until)
        self._retiring.start(
            self._retire(client),
            lambda error: log.error(
                "client not closed", action="client_ended", device=client.device_id, error=str(error)
            ),
        )

    def receipt(self, client: Client, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        """Reported to the worker."""
        self._events.receipt(client.device_id, message_ids, kind, at, by)

    def message(self, client: Client, event: Any) -> Callable[[], None] | None:
        """In a thread of the library."""
        return self._arrivals.received(client.device_id, event)

    def lost_event(self, client: Client, text: str) -> None:  # noqa: ARG002 - the text names the device
        """Reported to the worker."""
        self._events.defect(text)

    def restriction(self, client: Client, report: RestrictionReport) -> None:
        """WhatsApp knows better than `restricted_for` how long a restriction lasts."""
        if (until := self._restrictions.reported(client.device_id, report)) is not None:
            text = "WhatsApp does not let this account write to new contacts for now (463), until the time that it reported"
            self._events.device_changed(client.device_id, DeviceState.RESTRICTED.value, text, until)

    # ---- inside

    def _slot(self, device_id: str) -> ClientSlot:
        return self._slots.setdefault(device_id, ClientSlot(device_id))

    def _fits(self, client: Client, device: DeviceSpec) -> bool:
        return client.alive and client.session == device.session and client.egress.proxy == self._proxy_of(device)

    def _fresh(self, slot: ClientSlot, device: DeviceSpec) -> Client | None:
        client = slot.client
        if client is None or not self._fits(client, device) or client.silent_for() > self._settings.probe_after:
            return None
        slot.touch()
        return client

    def _proxy_of(self, device: DeviceSpec) -> Proxy | None:
        url = device.proxy or self._settings.proxy
        if url is None:
            return None
        try:
            return parse_proxy(url)
        except ValueError as error:
            raise DeviceUnavailableError(
                f"the proxy of device {device.id} {error}", error_class=ErrorClass.CONNECTION
            ) from None

    async def _rebuild(self, slot: ClientSlot, device: DeviceSpec) -> Client:
        session = await self._stored_session(slot, device)
        await self._reserve()
        try:
            async with self._limit_connects(device):
                client = self._make(device, session)
                self.connects += 1
                try:
                    await client.open(self._settings.connect_timeout)
                except BaseException:
                    await client.close()
                    raise
        except BaseException as error:
            self._release()
            if isinstance(error, ClientFailedError):
                self._remember(slot, error.failure)
                raise error.failure.as_error() from None
            raise
        slot.client, slot.session = client, session
        slot.touch()
        self._sweep()
        self._attend(slot, client)
        return client

    def _make(self, device: DeviceSpec, session: str) -> Client:
        if self._closed:
            raise DeviceUnavailableError("this worker is closing", error_class=ErrorClass.WORKER)
        proxy = self._proxy_of(device)
        return Client(
            device.id,
            session,
            # Read anew, because the store may have another primary since the last time.
            dsn=library_dsn(self._store.dsn, pgbouncer=self._settings.pgbouncer),
            gate=self._gate,
            library_lock=self._library_lock,
            proxy=proxy,
            listener=self,
            restricted=self._restrictions.is_restricted(device.id),
        )

    async def _stored_session(self, slot: ClientSlot, device: DeviceSpec) -> str:
        """The device's session, once its row was seen in the store."""
        if device.session is None:
            raise DeviceUnavailableError(
                f"device {device.id} is not paired", state=DeviceState.UNPAIRED.value, error_class=ErrorClass.ACCOUNT
            )
        try:
            digest = await self._store.session_digest(device.session)
        except DatabaseError as error:
            raise DeviceUnavailableError(str(error)) from error
        if slot.gone is not None and slot.session == device.session and digest in (None, slot.digest):
            # The library may not have deleted the row yet; connecting while it does would end the process. Other keys are those
            # of a new pairing: WhatsApp may give a new device the JID of one that was removed.
            raise slot.gone.as_error()
        if digest is None:
            raise _not_stored(device.session, device.id).as_error()
        slot.gone, slot.session, slot.digest = None, device.session, digest
        return device.session

    async def _check_session(self, client: Client) -> None:
        """At a visit of an open client. Raises DeviceUnavailableError if its session was deleted; then it is closed.

        A send notices that by itself: nothing can be encrypted, so its client is closed, and the next one finds no session.
        """
        try:
            digest = await self._store.session_digest(client.session)
        except DatabaseError:
            return
        if digest is None:
            missing = _not_stored(client.session, client.device_id)
            self.ended(client, missing)
            raise missing.as_error()

    @staticmethod
    def _remember(slot: ClientSlot, failure: Failure) -> None:
        if failure.state is DeviceState.LOGGED_OUT:
            slot.gone = failure

    async def _reserve(self) -> None:
        """Reserve room for one more client, by closing another one if need be."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while self._reserved >= self._settings.max_open_clients:
                    if (victim := await self._next_victim()) is not None:
                        async with victim.lock:
                            await self._close_client(victim)
        except TimeoutError:
            text = f"all {self._settings.max_open_clients} clients of this worker are in use (max_open_clients)"
            raise DeviceUnavailableError(text, retry_after=BUSY_RETRY) from None
        self._reserved += 1

    async def _next_victim(self) -> ClientSlot | None:
        """Wait until a client may be closed to make room; None when there is room. Scans all slots, so one task at a time."""
        async with self._choosing:
            while self._reserved >= self._settings.max_open_clients:
                self._freed.clear()
                visiting = asyncio.current_task() in self._visits
                if close := self._choose(self._slots.values(), needed=1, for_visit=visiting).close:
                    return self._slots[close[0]]
                if visiting:
                    raise DeviceUnavailableError(GAVE_WAY, retry_after=BUSY_RETRY)
                for visit in self._visits:
                    visit.cancel()
                await wait_for_event(self._freed, HOLD)
        return None

    def _choose(self, slots: Iterable[ClientSlot], *, needed: int = 0, for_visit: bool = False) -> Choice:
        budget = Budget(self._settings.idle_close, self._settings.linger, needed, for_visit)
        facts = [one for slot in slots if (one := slot.facts()) is not None]
        return choose(facts, budget, asyncio.get_running_loop().time())

    def _release(self) -> None:
        self._reserved -= 1
        self._freed.set()

    @asynccontextmanager
    async def _limit_connects(self, device: DeviceSpec) -> AsyncIterator[None]:
        """Limit concurrent connects, so that a restart is not a storm; those that hang block no others."""
        loop, timeout = asyncio.get_running_loop(), self._settings.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._connecting.acquire()
        except TimeoutError:
            text = f"device {device.id} waited {timeout:g} seconds for others to connect (max_connecting)"
            raise DeviceUnavailableError(text, retry_after=BUSY_RETRY) from None
        expiry = loop.call_later(CONNECT_COST, self._connecting.release)
        try:
            yield
        finally:
            if loop.time() < expiry.when():
                expiry.cancel()
                self._connecting.release()

    async def _close_client(self, slot: ClientSlot) -> None:
        """Close a slot's client and wait for its end. The caller holds the lock."""
        client, slot.client = slot.client, None
        if client is not None:
            closing = asyncio.ensure_future(client.close())
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                # Or the device would have another client before this one has ended.
                await asyncio.wait([closing])
                raise
            finally:
                self._release()

    async def _retire(self, client: Client) -> None:
        await client.close()
        slot = self._slots[client.device_id]
        async with slot.lock:
            if slot.client is client:
                await self._close_client(slot)

    def _sweep(self) -> None:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._close_idle())

    async def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while self._reserved:
            self._visit_over.clear()
            choice = self._choose(self._slots.values())
            for start in range(0, len(choice.close), CLOSED_AT_ONCE):
                await asyncio.gather(*map(self._close_if_due, choice.close[start : start + CLOSED_AT_ONCE]))
            # Without a client that could be closed, some are opening.
            pause = self._settings.idle_close if choice.look_again is None else choice.look_again - loop.time()
            await wait_for_event(self._visit_over, max(pause, self._settings.idle_close / LOOKS))

    async def _close_if_due(self, device_id: str) -> None:
        """Close it unless it was used meanwhile."""
        slot = self._slots[device_id]
        if self._choose([slot]).close:
            async with slot.lock:
                await self._close_client(slot)


def _not_stored(session: str, device_id: str) -> Failure:
    return Failure(f"the session {session} of device {device_id} is not in the session store", DeviceState.UNPAIRED)
