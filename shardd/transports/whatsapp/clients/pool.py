"""get_or_refresh: a healthy client for a device, or the reason why there is none.

Healthy means logged in, with a server that was heard a moment ago. A client that was silent for longer is probed with one
small round trip; one that does not answer, or that lost its connection, is replaced: under the lock of its device the old one
is closed and its end awaited, the session's row is read (connecting without it ends the process), and a new one connects, a
few at a time. Nothing runs per device in between: one sweep over all devices closes clients as `closing` chooses, and only while
clients are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from shardd.errors import DatabaseError, DeviceUnavailableError, ErrorClass
from shardd.ipc import DeviceSpec, StoreAccess
from shardd.logs import get_logger
from shardd.proxies import Proxy, parse_proxy
from shardd.states import DeviceState
from shardd.tasks import TaskSet, uncancelled, wait_for_event
from shardd.transports.base import Events
from shardd.transports.egress.gate import Gate
from shardd.transports.whatsapp.clients.client import Client, ClientFailedError
from shardd.transports.whatsapp.clients.closing import LOOKS, Budget, Choice, Purpose, choose, is_expected
from shardd.transports.whatsapp.clients.connecting import AHEAD, ClientReports, Connecting
from shardd.transports.whatsapp.clients.library import LibraryLock
from shardd.transports.whatsapp.clients.login_hold import LoginHold
from shardd.transports.whatsapp.clients.room import Room
from shardd.transports.whatsapp.clients.slot import HOLD, ClientSlot
from shardd.transports.whatsapp.clients.visits import BUSY_RETRY, Visits
from shardd.transports.whatsapp.clients.window import ConnectWindow
from shardd.transports.whatsapp.messages.arrivals import Arrivals
from shardd.transports.whatsapp.messages.failures import Failure, RestrictionReport
from shardd.transports.whatsapp.messages.recipients import Restrictions
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore

if TYPE_CHECKING:
    from shardd.config.transports.whatsapp import WhatsappConfig

log = get_logger(__name__)

NOT_USED: Final = float("-inf")
CLOSED_AT_ONCE: Final = 4
"""Clients that one sweep closes concurrently."""


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
        access: StoreAccess,
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
        self._reports = ClientReports(events, self._openings)
        self._room = Room(settings.max_open_clients, access, self._reports.changed)
        self._visit_over = asyncio.Event()
        self._visits = Visits(settings, events, self._visit_over.set)
        self._choosing = asyncio.Lock()
        window = ConnectWindow(settings.max_connecting)
        self._connecting = Connecting(window, settings.connect_timeout, self._reports.changed)
        self._sweeping: asyncio.Task[None] | None = None
        self._retiring = TaskSet()
        self._closed = False
        self._login_hold = LoginHold()

    @property
    def visit_turn(self) -> asyncio.Semaphore:
        """Held during a visit."""
        return self._visits.turn

    @property
    def open_clients(self) -> int:
        """Clients that are open, opening or closing."""
        return self._room.taken

    @property
    def gave_way(self) -> int:
        """Clients that were closed of late to make room, although their devices will send again soon."""
        return self._room.gave_way(asyncio.get_running_loop().time())

    def begin(self) -> None:
        """Report how many may be opened."""
        self._reports.report()

    def hold_logins(self, *, held: bool) -> None:
        """WhatsApp refuses this version of the library: a client that is closed now could not be replaced."""
        self._login_hold.hold(held=held)

    async def get_or_refresh(self, device: DeviceSpec, *, probe: bool = False) -> Client:
        """A healthy client of this device. Raises DeviceUnavailableError with the reason why there is none.

        `probe`: log in even while logins are held, with one client more than allowed if need be: another that were closed for it
        could not be replaced.
        """
        slot = self._slot(device.id)
        if (client := self._fresh(slot, device)) is not None:
            return client
        async with slot.lock:
            if (client := self._fresh(slot, device)) is not None:  # another task did it while we waited
                return client
            if (old := slot.client) is not None:
                if self._fits(old, device) and await old.probe(self._settings.probe_timeout):
                    return old
                await old.explained()
                await self._close_client(slot)
                if old.session == device.session and old.failure is not None:
                    self._remember(slot, old.failure)
                    if old.failure.state not in (
                        None,
                        DeviceState.LOGGED_OUT,
                    ):  # that one is for the stored session to say
                        raise old.failure.as_error()  # such as a client elsewhere that replaced it
            return await self._rebuild(slot, device, probe=probe)

    async def visit(self, device: DeviceSpec, *, late: bool, probe: bool = False) -> None:
        """Open a client for a moment, to hear what was sent to it; `Events.visited` follows. Raises DeviceUnavailableError.

        The caller holds a `visit_turn`. `late`: it could not be repeated in time; `probe`: see `get_or_refresh`.
        """
        slot = self._slot(device.id)
        before, used_at = slot.client, NOT_USED if slot.client is None else slot.used_at
        client = await self._visits.open(self.get_or_refresh(device, probe=probe), late=late)
        if client is before:
            await self._check_session(client)
        slot.visited_since = used_at
        self._visits.attend(slot, client)

    @asynccontextmanager
    async def in_use(self, client: Client) -> AsyncIterator[None]:
        """While a client is in use it is not closed to make room or as idle."""
        slot = self._slots[client.device_id]
        slot.in_use += 1
        try:
            yield
        finally:
            slot.release()
            self._room.is_freed()

    def hold(self, client: Client) -> None:
        """It is about to be used: do not close it for a moment."""
        self._slots[client.device_id].hold()

    def expect(self, device_id: str, again: float | None) -> None:
        """It will send again in so many seconds; None: unknown."""
        if (slot := self._slots.get(device_id)) is not None:
            slot.expect(again)

    async def close_device(self, device_id: str) -> None:
        """Close this device's client, and forget why it could not be opened."""
        slot = self._slots.get(device_id)
        if slot is not None:
            async with slot.lock:
                await self._close_client(slot)
                slot.gone = slot.presence_at = None

    def change_store_access(self, access: StoreAccess) -> None:
        """How clients that open from now on reach the session store; the others are replaced when they are needed next."""
        self._room.change(access)
        self._retiring.start(
            self._close_surplus(),
            lambda error: log.error("surplus clients not closed", action="client_ended", error=str(error)),
        )

    async def close(self) -> None:
        """Close every client."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._reports.end()
        await self._visits.end()
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

    @property
    def wants_history(self) -> bool:
        """As the config says."""
        return self._arrivals.wants_history

    def history(self, client: Client, event: Any) -> Callable[[], None] | None:
        """In a thread of the library."""
        return self._arrivals.history(client.device_id, event)

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
        return (
            client.alive
            and client.session == device.session
            and client.egress.proxy == self._proxy_of(device)
            and client.pooler == self._room.access.pooler
        )

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

    async def _rebuild(self, slot: ClientSlot, device: DeviceSpec, *, probe: bool) -> Client:
        session, loop = await self._stored_session(slot, device), asyncio.get_running_loop()
        if not probe:
            self._login_hold.check(loop.time())
            await self._make_room()
        self._room.taken += 1
        self._room.opening += 1
        try:
            async with self._connecting.turn(device.id, visit=self._visits.purpose is Purpose.VISIT) as turn:
                if not probe:  # it may have waited for long
                    self._login_hold.check(loop.time())
                client = self._make(device, session)
                self.connects += 1
                try:
                    await client.open(self._settings.connect_timeout, partial(self._connecting.dialled, turn))
                except BaseException as error:
                    if isinstance(error, ClientFailedError):
                        self._connecting.refused(unanswered=client.is_unanswered)
                        self._remember(slot, error.failure)
                    await uncancelled(client.close())
                    raise
                self._connecting.accepted(turn)
        except BaseException as error:
            self._room.release(at_once=self._closed)
            if isinstance(error, ClientFailedError):
                if error.failure.state is DeviceState.CLIENT_OUTDATED:
                    self._login_hold.refused(device.id, loop.time())
                    self._events.login_answered(device.id, outdated=True)
                raise error.failure.as_error() from None
            raise
        finally:
            self._room.opening -= 1
        self._login_hold.accepted()
        self._events.login_answered(device.id, outdated=False)
        slot.client, slot.session = client, session
        slot.touch()
        self._reports.opened(device.id)
        self._sweep()
        self._visits.attend(slot, client)
        return client

    def _make(self, device: DeviceSpec, session: str) -> Client:
        if self._closed:
            raise DeviceUnavailableError("this worker is closing", error_class=ErrorClass.WORKER)
        proxy, pooler = self._proxy_of(device), self._room.access.pooler
        return Client(
            device.id,
            session,
            # Read anew, because the store may have another primary since the last time.
            dsn=library_dsn(
                self._store.dsn,
                pgbouncer=self._settings.pgbouncer or pooler is not None,
                idle=self._room.idle_seconds,
            ),
            pooler=pooler,
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

    def _openings(self) -> int:
        """How many devices without a client may be given jobs at the same time."""
        most = self._connecting.most + AHEAD
        places = self._room.opening + self._room.most - self._room.taken
        if places < most:
            places += sum(1 for slot in self._slots.values() if (one := slot.facts()) is not None and not one.busy)
        return max(0, min(most, places))

    async def _make_room(self) -> None:
        """Wait until there is room for one more client, and close another one if need be."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while self._room.full:
                    if (victim := await self._next_victim()) is not None:
                        async with victim.lock:
                            self._note_eviction(victim)
                            await self._close_client(victim)
                    while self._room.ending and self._room.full:
                        # The client that was closed makes room in a moment, so no other is closed for that.
                        self._room.freed.clear()
                        await wait_for_event(self._room.freed, HOLD)
        except TimeoutError:
            text = f"all {self._room.most} clients of this worker are in use ({self._room.why_full})"
            raise DeviceUnavailableError(text, retry_after=BUSY_RETRY) from None

    def _note_eviction(self, slot: ClientSlot) -> None:
        """Its client is closed to make room."""
        now = asyncio.get_running_loop().time()
        if (facts := slot.facts()) is not None and is_expected(facts, now):
            self._room.gave_way_at.append(now)

    async def _next_victim(self) -> ClientSlot | None:
        """Wait until a client may be closed to make room; None when there is room. Scans all slots, so one task at a time."""
        async with self._choosing:
            while self._room.full:
                self._room.freed.clear()
                purpose = self._visits.purpose
                if close := self._choose(self._slots.values(), needed=1, purpose=purpose).close:
                    return self._slots[close[0]]
                if purpose is not Purpose.SEND:
                    raise self._visits.gave_way()
                self._visits.give_way()
                await wait_for_event(self._room.freed, HOLD)
        return None

    def _choose(self, slots: Iterable[ClientSlot], *, needed: int = 0, purpose: Purpose = Purpose.SEND) -> Choice:
        budget = Budget(self._settings.idle_close, self._settings.linger, needed, purpose)
        facts = [one for slot in slots if (one := slot.facts()) is not None]
        return choose(facts, budget, asyncio.get_running_loop().time())

    async def _close_surplus(self) -> None:
        """Close what may not be open any more, as far as it is not in use."""
        opened = [slot for slot in self._slots.values() if slot.client is not None]
        if (surplus := len(opened) - self._room.most) <= 0:
            return
        await _close_each(self._choose(opened, needed=surplus).close, self._close_unless_used)

    async def _close_unless_used(self, device_id: str) -> None:
        slot = self._slots[device_id]
        async with slot.lock:
            if not slot.in_use:
                await self._close_client(slot)

    async def _close_client(self, slot: ClientSlot) -> None:
        """Close a slot's client and wait for its end. The caller holds the lock."""
        client, slot.client = slot.client, None
        if client is not None:
            try:
                await uncancelled(client.close())  # or the device would have another client before this one has ended
            finally:
                self._room.release(at_once=self._closed)
                self._reports.closed(slot.device_id)

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
        while self._room.taken:
            self._visit_over.clear()
            choice = self._choose(self._slots.values())
            due = () if self._login_hold.held else choice.close
            await _close_each(due, self._close_if_due)
            # Without a client that could be closed, some are opening.
            pause = self._settings.idle_close if choice.look_again is None else choice.look_again - loop.time()
            await wait_for_event(self._visit_over, max(pause, self._settings.idle_close / LOOKS))

    async def _close_if_due(self, device_id: str) -> None:
        """Close it unless it was used meanwhile."""
        slot = self._slots[device_id]
        if self._choose([slot]).close:
            async with slot.lock:
                await self._close_client(slot)


async def _close_each(device_ids: Sequence[str], close: Callable[[str], Awaitable[None]]) -> None:
    """A few at a time."""
    for start in range(0, len(device_ids), CLOSED_AT_ONCE):
        await asyncio.gather(*map(close, device_ids[start : start + CLOSED_AT_ONCE]))


def _not_stored(session: str, device_id: str) -> Failure:
    return Failure(f"the session {session} of device {device_id} is not in the session store", DeviceState.UNPAIRED)
