"""get_or_refresh: a healthy client for a device, now, or the reason why there is none.

Healthy is: logged in, and the server was heard a moment ago. A client that was silent for longer is asked with one small round
trip; one that does not answer, or that lost its connection, is replaced: under the lock of its device the old one is closed and
its end awaited, the session's row is read (connecting without it ends the process), and a new one connects, a few at a time.
Nothing happens for a device in between: one sweep for all devices closes clients that had no work, and it runs only while
there are any.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Final

from shardd.errors import DatabaseError, DeviceUnavailableError, ErrorClass
from shardd.ipc import DeviceSpec
from shardd.logs import get_logger
from shardd.states import DeviceState
from shardd.transports.base import Events
from shardd.transports.egress.gate import Gate
from shardd.transports.egress.upstream import Proxy, parse_proxy
from shardd.transports.whatsapp.clients.client import Client, TroubleError
from shardd.transports.whatsapp.clients.library_lock import LibraryLock
from shardd.transports.whatsapp.clients.slots import HOLD, ClientSlot, least_recently_used
from shardd.transports.whatsapp.messages.failures import Trouble
from shardd.transports.whatsapp.messages.incoming import Incoming
from shardd.transports.whatsapp.messages.opt_outs import OptOuts
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore
from shardd.transports.whatsapp.settings import Settings

log = get_logger(__name__)

SWEEPS: Final = 4
"""Sweeps within the idle time: a client is closed at most a quarter of it too late."""
TURN: Final = 1.0
"""Seconds of a connect that count for `max_connecting`: one that takes longer waits for somebody else and costs nothing."""
BUSY_RETRY: Final = 1.0
"""Seconds until a device comes again that this worker had no room for: nothing is wrong with it, so the wait does not grow."""
CLOSINGS: Final = 4
"""Clients that one sweep closes at the same time."""


class Clients:
    """All clients of one worker."""

    def __init__(self, settings: Settings, gate: Gate, store: SessionStore, events: Events, opt_outs: OptOuts) -> None:
        self.connects = 0
        self._settings = settings
        self._gate = gate
        self._library_lock = LibraryLock()
        self._store = store
        self._events = events
        self._opt_outs = opt_outs
        self._slots: dict[str, ClientSlot] = {}
        self._taken = 0
        self._freed = asyncio.Event()
        self._looking = asyncio.Lock()
        self._connecting = asyncio.Semaphore(settings.max_connecting)
        self._sweeping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def open_clients(self) -> int:
        """Clients that are open, or on their way in or out."""
        return self._taken

    async def get_or_refresh(self, device: DeviceSpec) -> Client:
        """A healthy client of this device. Raises DeviceUnavailableError with the reason why there is none."""
        slot = self._slots.setdefault(device.id, ClientSlot(device.id))
        if (client := self._fresh(slot, device)) is not None:
            return client
        async with slot.lock:
            if (client := self._fresh(slot, device)) is not None:  # somebody else did it while we waited
                return client
            old = slot.client
            if old is not None and self._fits(old, device) and await old.probe(self._settings.probe_timeout):
                return old
            await self._close_client(slot)
            return await self._rebuild(slot, device)

    @asynccontextmanager
    async def in_use(self, client: Client) -> AsyncIterator[None]:
        """While a client is in use it is neither idle nor the least recently used one."""
        slot = self._slots.get(client.device_id)
        if slot is not None:
            slot.in_use += 1
        try:
            yield
        finally:
            if slot is not None:
                slot.release()
                self._freed.set()

    def hold(self, client: Client) -> None:
        """It is about to be used: spare it for a moment."""
        if (slot := self._slots.get(client.device_id)) is not None:
            slot.hold()

    async def close_device(self, device_id: str) -> None:
        """Close what is open for this device, and forget why it could not be opened.

        The slot stays: somebody may be waiting for its lock, and a second slot would be a second client.
        """
        slot = self._slots.get(device_id)
        if slot is not None:
            async with slot.lock:
                await self._close_client(slot)
                slot.gone = None

    async def close(self) -> None:
        """Close every client."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.gather(*(self.close_device(device_id) for device_id in tuple(self._slots)))

    # ---- client.Listener

    def ended(self, client: Client, trouble: Trouble) -> None:
        """An open client is of no use any more: close it now, so that nothing of it goes on in the background."""
        log.info("client ended", action="client_ended", device=client.device_id, reason=trouble.text)
        if trouble.state is not None:
            slot = self._slots.get(client.device_id)
            if slot is not None and slot.client is client:
                self._remember(slot, trouble)
            self._events.device_changed(client.device_id, trouble.state.value, trouble.text, trouble.until)
        self._spawn(self._retire(client))

    def receipt(self, client: Client, message_ids: list[str], kind: str, at: float) -> None:
        """Passed on."""
        self._events.receipt(client.device_id, message_ids, kind, at)

    def message(self, client: Client, incoming: Incoming) -> None:
        """Looked at for an opt-out."""
        self._opt_outs.heard(client.device_id, incoming)

    # ---- inside

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
                f"the proxy of device {device.id} cannot be used: {error}", error_class=ErrorClass.CONNECTION
            ) from None

    async def _rebuild(self, slot: ClientSlot, device: DeviceSpec) -> Client:
        session = await self._stored_session(slot, device)
        await self._take_place()
        try:
            async with self._turn(device):
                client = self._make(device, session)
                self.connects += 1
                try:
                    await client.open(self._settings.connect_timeout)
                except BaseException:
                    await client.close()
                    raise
        except BaseException as error:
            self._give_place()
            if isinstance(error, TroubleError):
                self._remember(slot, error.trouble)
                raise error.trouble.as_error() from None
            raise
        slot.client, slot.session = client, session
        slot.touch()
        self._sweep()
        return client

    def _make(self, device: DeviceSpec, session: str) -> Client:
        if self._closed:
            raise DeviceUnavailableError("this worker is closing", error_class=ErrorClass.WORKER)
        proxy = self._proxy_of(device)
        return Client(
            device.id,
            session,
            # Now, because the store may have a new primary since the last time.
            dsn=library_dsn(self._store.dsn, pgbouncer=self._settings.pgbouncer),
            gate=self._gate,
            library_lock=self._library_lock,
            proxy=proxy,
            listener=self,
        )

    async def _stored_session(self, slot: ClientSlot, device: DeviceSpec) -> str:
        """The device's session, seen in the store a moment ago."""
        if device.session is None:
            raise DeviceUnavailableError(
                f"device {device.id} is not paired", state=DeviceState.UNPAIRED.value, error_class=ErrorClass.ACCOUNT
            )
        if slot.gone is not None and slot.session == device.session:
            # The library may not have deleted the row yet; connecting while it does would end the process.
            raise slot.gone.as_error()
        try:
            found = await self._store.session_exists(device.session)
        except DatabaseError as error:
            raise DeviceUnavailableError(str(error)) from error
        if not found:
            text = f"the session {device.session} of device {device.id} is not in the session store"
            raise DeviceUnavailableError(text, state=DeviceState.UNPAIRED.value, error_class=ErrorClass.ACCOUNT)
        slot.gone, slot.session = None, device.session
        return device.session

    @staticmethod
    def _remember(slot: ClientSlot, trouble: Trouble) -> None:
        if trouble.state is DeviceState.LOGGED_OUT:
            slot.gone = trouble

    async def _take_place(self) -> None:
        """Count one more open client; the least recently used one makes room."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while self._taken >= self._settings.max_open_clients:
                    if (victim := await self._next_victim()) is not None:
                        async with victim.lock:
                            await self._close_client(victim)
        except TimeoutError:
            text = f"all {self._settings.max_open_clients} clients of this worker are in use (max_open_clients)"
            raise DeviceUnavailableError(text, retry_after=BUSY_RETRY) from None
        self._taken += 1

    async def _next_victim(self) -> ClientSlot | None:
        """Wait until a client may make room; None when there is room without. One at a time: each look is at all slots."""
        async with self._looking:
            while self._taken >= self._settings.max_open_clients:
                self._freed.clear()
                if (victim := least_recently_used(self._slots.values())) is not None:
                    return victim
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._freed.wait(), HOLD)
        return None

    def _give_place(self) -> None:
        self._taken -= 1
        self._freed.set()

    @asynccontextmanager
    async def _turn(self, device: DeviceSpec) -> AsyncIterator[None]:
        """Connects are few at a time, so that a restart is no storm; those that hang keep nobody out."""
        loop, timeout = asyncio.get_running_loop(), self._settings.connect_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._connecting.acquire()
        except TimeoutError:
            text = f"device {device.id} did not get its turn to connect within {timeout:g} seconds (max_connecting)"
            raise DeviceUnavailableError(text, retry_after=BUSY_RETRY) from None
        over = loop.call_later(TURN, self._connecting.release)
        try:
            yield
        finally:
            if loop.time() < over.when():
                over.cancel()
                self._connecting.release()

    async def _close_client(self, slot: ClientSlot) -> None:
        """Close a slot's client and wait for its end; the caller holds the lock."""
        client, slot.client = slot.client, None
        if client is not None:
            try:
                await client.close()
            finally:
                self._give_place()

    async def _retire(self, client: Client) -> None:
        await client.close()
        slot = self._slots.get(client.device_id)
        if slot is None:
            return
        async with slot.lock:
            if slot.client is client:
                await self._close_client(slot)

    def _sweep(self) -> None:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._close_idle())

    async def _close_idle(self) -> None:
        while self._taken:
            await asyncio.sleep(self._settings.idle_close / SWEEPS)
            limit = asyncio.get_running_loop().time() - self._settings.idle_close
            idle = [slot for slot in self._slots.values() if slot.is_idle() and slot.used_at <= limit]
            for start in range(0, len(idle), CLOSINGS):
                await asyncio.gather(*(self._close_if_idle(slot, limit) for slot in idle[start : start + CLOSINGS]))

    async def _close_if_idle(self, slot: ClientSlot, limit: float) -> None:
        async with slot.lock:
            if slot.is_idle() and slot.used_at <= limit:
                await self._close_client(slot)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
