"""Unlinking: log a session out at WhatsApp, so that the phone no longer lists it, and delete it from the store.

It runs in a child process with a client of its own: the worker must have closed the device's before. Its login is the last
chance to hear what waited for the device (`hearing`): the session is not ended before all of it is there and kept. What is
lost in the moment between the logout and the end of the client is reported as a remark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from shardd.errors import SharddError
from shardd.proxies import parse_proxy
from shardd.transports.whatsapp import oneshot
from shardd.transports.whatsapp.linking.hearing import Hearing, Losses, open_arrivals
from shardd.transports.whatsapp.messages.arrivals import Arrivals
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore

MODULE: Final = "shardd.transports.whatsapp.linking.unlinking"
TIMEOUT: Final = 150.0
CONNECT_TIMEOUT: Final = 20.0
PATIENCE: Final = 60.0
"""Seconds for the messages that waited for the device: some hundreds on a slow disk."""
CLOSE_TIMEOUT: Final = 40.0
NOT_CLOSED: Final = "what people wrote to the device in the last moment may be lost: its client did not end"


async def unlink(
    sessions_dsn: str,
    jid: str,
    hearing: Hearing,
    *,
    pgbouncer: bool = False,
    proxy: str | None = None,
    timeout: float = TIMEOUT,
    patience: float = PATIENCE,
) -> str | None:
    """Log a session out and delete it; returns why messages to it may be lost. One that WhatsApp has ended is only deleted.

    `patience`: seconds for the messages that waited for the device. Raises SharddError when the logout fails; the session is
    kept then (`forget_session` deletes it all the same).
    """
    request = {
        "dsn": sessions_dsn,
        "pgbouncer": pgbouncer,
        "jid": jid,
        "proxy": proxy,
        "hearing": asdict(hearing),
        "patience": patience,
    }
    event = [event async for event in oneshot.converse(MODULE, request, timeout=timeout)][-1]
    if event["event"] != "unlinked":
        raise SharddError(f"session {jid} could not be logged out: {event['reason']}")
    remark: str | None = event.get("reason")
    return remark


async def forget_session(sessions_dsn: str, jid: str) -> None:
    """Delete a session from the store without a logout: the phone still lists it. Raises DatabaseError."""
    store = SessionStore(sessions_dsn)
    try:
        await store.delete_session(jid)
    finally:
        await store.close()


class _Listener:
    """Keeps the messages, and ignores the client's other events: a failure also ends the call in flight."""

    def __init__(self, arrivals: Arrivals, device_id: str, losses: Losses) -> None:
        self._arrivals = arrivals
        self._device_id = device_id
        self._losses = losses

    def ended(self, client: Any, failure: Any) -> None: ...

    def receipt(self, client: Any, message_ids: list[str], kind: str, at: float, by: int = 0) -> None: ...

    def message(self, client: Any, event: Any) -> Callable[[], None] | None:  # noqa: ARG002 - there is one client
        return self._arrivals.received(self._device_id, event)

    @property
    def wants_history(self) -> bool:
        return self._arrivals.wants_history

    def history(self, client: Any, event: Any) -> Callable[[], None] | None:  # noqa: ARG002 - there is one client
        return self._arrivals.history(self._device_id, event)

    def lost_event(self, client: Any, text: str) -> None:  # noqa: ARG002 - the text names the device
        self._losses.defect(text)

    def restriction(self, client: Any, report: Any) -> None: ...


async def _unlink(request: dict[str, Any], report: oneshot.Report) -> None:
    # Only this process may load the library.
    from neonize.exc import NeonizeError  # noqa: PLC0415

    from shardd.states import DeviceState  # noqa: PLC0415
    from shardd.transports.egress.gate import Gate  # noqa: PLC0415
    from shardd.transports.whatsapp.clients.client import Client, ClientFailedError  # noqa: PLC0415
    from shardd.transports.whatsapp.clients.library import LibraryLock, adopt_loop  # noqa: PLC0415

    adopt_loop()
    store = SessionStore(request["dsn"])
    if await store.session_digest(request["jid"]) is None:
        report({"event": "unlinked"})
        return
    hearing, losses = Hearing(**request["hearing"]), Losses()
    listener = _Listener(open_arrivals(hearing, losses), hearing.device_id, losses)
    gate = Gate(connect_timeout=CONNECT_TIMEOUT)
    await gate.start()
    try:
        proxy = parse_proxy(request["proxy"]) if request["proxy"] else None
    except ValueError as error:
        raise SharddError(f"the proxy {error}") from None
    url = library_dsn(store.dsn, pgbouncer=request["pgbouncer"])
    client = Client(
        hearing.device_id,
        request["jid"],
        dsn=url,
        gate=gate,
        library_lock=LibraryLock(),
        proxy=proxy,
        listener=listener,
    )
    try:
        await client.open(CONNECT_TIMEOUT)
        if not await client.heard_all(request["patience"]):
            text = f"what people wrote to the device did not all arrive within {request['patience']:g} seconds"
            raise SharddError(f"{text}; what did is kept, so try again for the rest")
        if losses.texts:
            raise SharddError("; ".join(losses.texts))
        await client.call(client.handle.logout, CONNECT_TIMEOUT)
    except ClientFailedError as error:
        if error.failure.state is not DeviceState.LOGGED_OUT:
            raise SharddError(error.failure.text) from None
    except (NeonizeError, TimeoutError) as error:
        raise SharddError(str(error) or "WhatsApp did not answer") from None
    finally:
        _, unclosed = await asyncio.wait([asyncio.ensure_future(client.close())], timeout=CLOSE_TIMEOUT)
    await store.delete_session(request["jid"])
    report({"event": "unlinked", "reason": "; ".join(losses.texts) or (NOT_CLOSED if unclosed else None)})


if __name__ == "__main__":
    oneshot.run(_unlink)
