"""Pairing: a phone links this computer as one of its devices, by a QR code or by a code that its owner types.

It runs in a child process, because an abandoned pairing leaves a thread in the library that never ends, and beside a running
daemon, since a new session affects no other. The child ends with its caller, and unlinks a phone that is linked by then: nobody
else would bind its session to a device. A session belongs to the account whose phone scanned: if that is not the
expected one, it is unlinked again before it can be used. Until its end a pairing has the device's connection, so what people
write meanwhile is kept (`hearing`), unless it is the wrong phone's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import uuid4

from shardd.errors import PairingError, PairingFailure, SharddError
from shardd.persons import digits_of
from shardd.proxies import parse_proxy
from shardd.transports.whatsapp import oneshot
from shardd.transports.whatsapp.clients.draining import Callbacks
from shardd.transports.whatsapp.linking.hearing import Hearing, Losses, open_arrivals
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore, StoredSession
from shardd.transports.whatsapp.version import installed_library
from shardd.urls import scrub_urls

MODULE: Final = "shardd.transports.whatsapp.linking.pairing"
TIMEOUT: Final = 180.0
"""Seconds: WhatsApp shows six QR codes, the first for a minute, the others for 20 seconds each."""
SETTLE: Final = 3.0
"""Seconds that a new session stays online, in which the phone transfers its data."""
LOGIN_TIMEOUT: Final = 30.0
DISCONNECT_TIMEOUT: Final = 5.0
NOT_DRAINED: Final = "some of what people wrote to the device meanwhile may be lost: the disk was too slow"


@dataclass(frozen=True, slots=True)
class PairingEvent:
    """An event of a pairing, by `kind`.

    `qr`: show `code` as a QR code in place of the last one. `code`: `code` is to be typed on the phone. `scanned`: the phone of
    `number` linked us. The last one is `paired` (`jid`, `lid`, `number`, and as `reason` why messages to the device may be lost),
    `failed` (`reason`, `failure`) or `timeout` (`reason`).
    """

    kind: str
    code: str | None = None
    jid: str | None = None
    lid: str | None = None
    number: str | None = None
    reason: str | None = None
    failure: str = PairingFailure.ENDED


async def pair(
    sessions_dsn: str,
    hearing: Hearing,
    *,
    pgbouncer: bool = False,
    phone: str | None = None,
    expected: str | None = None,
    proxy: str | None = None,
    timeout: float = TIMEOUT,
    settle: float = SETTLE,
) -> AsyncGenerator[PairingEvent]:
    """Pair a new session; yields its events, the outcome last. Closing the generator aborts the pairing.

    `sessions_dsn`: of a prepared store. `hearing`: what becomes of the messages to the device. `phone`: pair by a typed code
    with this number (with country code) instead of by QR. `expected`: the only number that may be paired; by default `phone`.
    `proxy`: the device's upstream proxy. `timeout`: seconds for the phone's owner. Raises SharddError when it cannot even
    start.
    """
    request = {
        "dsn": sessions_dsn,
        "pgbouncer": pgbouncer,
        "phone": digits_of(phone or ""),
        "expected": digits_of(expected or phone or ""),
        "proxy": _proxy_url(proxy),
        "patience": timeout,
        "settle": settle,
        "hearing": asdict(hearing),
    }
    # What follows a scan has deadlines of its own: a session that exists is never abandoned half-way.
    deadline = timeout + settle + 4 * LOGIN_TIMEOUT
    async with aclosing(oneshot.converse(MODULE, request, timeout=deadline)) as conversation:
        async for event in conversation:
            yield PairingEvent(kind=event.pop("event"), **event)


def _proxy_url(proxy: str | None) -> str | None:
    try:
        return parse_proxy(proxy).url if proxy else None
    except ValueError as error:
        raise SharddError(f"the proxy {error}") from None


class _Pairing:
    """The child's side of one pairing."""

    def __init__(self, request: dict[str, Any], report: oneshot.Report) -> None:
        # Only this process may load the library.
        from neonize.aioze import events  # noqa: PLC0415
        from neonize.aioze.client import NewAClient  # noqa: PLC0415
        from neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2 import DeviceProps  # noqa: PLC0415

        self._request = request
        self._report = report
        hearing = Hearing(**request["hearing"])
        self._losses = Losses()
        self._arrivals = open_arrivals(hearing, self._losses)
        self._device_id = hearing.device_id
        self._callbacks = Callbacks()
        self._is_wanted = False
        """Whether the phone that was linked is the expected one."""
        self._scanned: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._connected = asyncio.Event()
        self._code_asked = False
        url = library_dsn(request["dsn"], pgbouncer=request["pgbouncer"])
        props = DeviceProps(os="shardd", platformType=DeviceProps.CHROME)
        self._client = NewAClient(url, props=props, new_device=True)
        self._client.uuid = uuid4().hex.encode()
        self._client._stop_finalizer.detach()  # noqa: SLF001 - it would stop the client at any time
        self._client.event.qr(self._qr)
        on = self._client.event
        on.execute = self._guarded(on.execute)
        on(events.MessageEv)(self._message)
        if self._arrivals.wants_history:
            on(events.HistorySyncEv)(self._history)
        on(events.PairStatusEv)(self._pair_status)
        on(events.ConnectedEv)(self._on_connected)
        on(events.ClientOutdatedEv)(
            self._refused(
                f"WhatsApp refuses {installed_library()} (failure 405): shardd guide library", PairingFailure.OUTDATED
            )
        )
        on(events.ConnectFailureEv)(self._refused("WhatsApp refused the connection", PairingFailure.NOT_LINKED))
        on(events.TemporaryBanEv)(self._refused("WhatsApp banned this account temporarily", PairingFailure.BANNED))

    async def run(self) -> None:
        """Pair, and report the outcome."""
        from neonize._binder import ProxySettings  # noqa: PLC0415 - see above

        proxy = ProxySettings(self._request["proxy"]) if self._request["proxy"] else None
        running = await self._client.connect(proxy)
        running.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._request["patience"]):
                jid = await self._scanned
        except TimeoutError:
            text = f"no phone was linked within {self._request['patience']:g} seconds"
            self._report({"event": "timeout", "reason": text})
            return
        session = f"{jid.User}:{jid.Device}@{jid.Server}"
        try:
            await self._complete(session, jid.User)
        except (asyncio.CancelledError, BrokenPipeError):
            # Nobody is there any more to bind the session to a device.
            await self._log_in()
            await self._undo(session)
            raise

    async def _log_in(self) -> None:
        """WhatsApp ends the connection after a pairing; the library reconnects with the new session."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOGIN_TIMEOUT):
                await self._connected.wait()

    async def _complete(self, session: str, number: str) -> None:
        """Log in, and report that the device is paired. Raises PairingError."""
        self._report({"event": "scanned", "number": number})
        await self._log_in()
        expected = self._request["expected"]
        if expected and number != expected:
            await self._undo(session)
            raise PairingError(
                f"the phone that was linked is +{number}, not +{expected}: it has been unlinked again",
                PairingFailure.WRONG_NUMBER,
            )
        if not self._connected.is_set():
            await self._undo(session)
            raise PairingError(
                "the phone was linked, but the first login with the new session failed; please try again",
                PairingFailure.NO_LOGIN,
            )
        await asyncio.sleep(self._request["settle"])
        await asyncio.wait([asyncio.ensure_future(self._client.disconnect())], timeout=DISCONNECT_TIMEOUT)
        drained = await self._callbacks.drain(silent_for=0.0)
        await self._client.stop()
        stored = await self._stored(session)
        remark = "; ".join(self._losses.texts) or (None if drained else NOT_DRAINED)
        self._report({"event": "paired", "jid": stored.jid, "lid": stored.lid, "number": number, "reason": remark})

    async def _undo(self, jid: str) -> None:
        from neonize.exc import NeonizeError  # noqa: PLC0415 - see above

        store = SessionStore(self._request["dsn"])
        try:
            with suppress(NeonizeError, TimeoutError):
                async with asyncio.timeout(LOGIN_TIMEOUT):
                    await self._client.logout()
            await self._client.stop()
            await store.delete_session(jid)
        finally:
            await store.close()

    async def _stored(self, jid: str) -> StoredSession:
        store = SessionStore(self._request["dsn"])
        try:
            return next(session for session in await store.list_sessions() if session.jid == jid)
        except StopIteration:
            raise SharddError(f"the phone was linked, but its session {jid} is not in the session store") from None
        finally:
            await store.close()

    # ---- events of the library

    async def _qr(self, _: Any, code: bytes) -> None:
        if not self._request["phone"]:
            self._report({"event": "qr", "code": code.decode()})
        elif not self._code_asked:
            # The connection is ready for a code once it shows the first QR.
            self._code_asked = True
            try:
                typed = await self._client.PairPhone(self._request["phone"], show_push_notification=True)
            except Exception as error:  # noqa: BLE001 - any error is the answer
                self._fail(f"WhatsApp gave no code for +{self._request['phone']}: {error}", PairingFailure.NO_CODE)
            else:
                self._report({"event": "code", "code": typed})

    def _pair_status(self, _: Any, status: Any) -> Coroutine[Any, Any, None]:
        """Called in the library's thread, before every message; the coroutine runs in the event loop."""
        self._is_wanted = not self._request["expected"] or status.ID.User == self._request["expected"]

        async def finish() -> None:
            if status.Error:
                self._fail(f"the phone could not be linked: {status.Error}", PairingFailure.NOT_LINKED)
            elif not self._scanned.done():
                self._scanned.set_result(status.ID)

        return finish()

    def _message(self, _: Any, event: Any) -> Coroutine[Any, Any, None]:
        """Called as `_pair_status` is."""
        return self._finish(self._arrivals.received(self._device_id, event) if self._is_wanted else None)

    def _history(self, _: Any, event: Any) -> Coroutine[Any, Any, None]:
        """Called as `_pair_status` is."""
        return self._finish(self._arrivals.history(self._device_id, event) if self._is_wanted else None)

    @staticmethod
    async def _finish(remaining: Callable[[], None] | None) -> None:
        if remaining is not None:
            remaining()

    def _guarded(self, execute: Callable[..., None]) -> Callable[..., None]:
        """The library's callback, for every event. What it raises would only be printed: a message may be lost by it."""

        def call(*arguments: Any) -> None:
            try:
                with self._callbacks.running():
                    execute(*arguments)
            except Exception as error:  # noqa: BLE001 - of the protobuf decoder, which has limits that the sender may exceed
                self._losses.defect(f"an event of the device cannot be read: {type(error).__name__}: {error}")

        return call

    async def _on_connected(self, _: Any, __: Any) -> None:
        self._connected.set()

    def _refused(self, reason: str, failure: PairingFailure) -> Any:
        async def handle(_: Any, __: Any) -> None:
            self._fail(reason, failure)

        return handle

    def _ended(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            self._fail(f"WhatsApp could not be reached: {error}", PairingFailure.UNREACHABLE)

    def _fail(self, reason: str, failure: PairingFailure) -> None:
        reason = scrub_urls(reason)  # Go quotes whole URLs
        if not self._scanned.done():
            self._scanned.set_exception(PairingError(reason, failure))


async def _pair(request: dict[str, Any], report: oneshot.Report) -> None:
    from shardd.transports.whatsapp.clients.library import adopt_loop  # noqa: PLC0415 - see above

    adopt_loop()
    try:
        await _Pairing(request, report).run()
    except PairingError as error:
        report({"event": "failed", "reason": scrub_urls(str(error)), "failure": error.failure})


if __name__ == "__main__":
    oneshot.run(_pair, alone=False)
