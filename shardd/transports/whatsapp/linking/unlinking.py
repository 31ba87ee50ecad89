"""Unlinking: log a session out at WhatsApp, so that the phone no longer lists it, and delete it from the store.

It runs in a child process with a client of its own: the worker must have closed the device's before. Its login is the last
chance to hear what waited for the device, so these messages are written to the spool of this host, whose daemon stores them, now
or at its next start. The session is not ended if they cannot be written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shardd.errors import SharddError
from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.opt_out_words import OptOutWords
from shardd.proxies import parse_proxy
from shardd.transports.whatsapp import oneshot
from shardd.transports.whatsapp.messages.arrivals import Arrivals
from shardd.transports.whatsapp.messages.recipients import Directory, OptOuts
from shardd.transports.whatsapp.sessions.dsn import library_dsn
from shardd.transports.whatsapp.sessions.store import SessionStore

MODULE: Final = "shardd.transports.whatsapp.linking.unlinking"
TIMEOUT: Final = 100.0
CONNECT_TIMEOUT: Final = 20.0
NOT_KEPT: Final = "what people wrote to the device meanwhile could not be kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """What becomes of the messages that waited for the device."""

    device_id: str
    state_dir: str
    """Of the spool."""
    opt_out_words: Sequence[str] = ()
    take_back_words: Sequence[str] = ()
    include: Sequence[str] | None = None
    """See `inbox.include` of the config; None: only opt-outs are kept."""


async def unlink(
    sessions_dsn: str,
    jid: str,
    hearing: Hearing,
    *,
    pgbouncer: bool = False,
    proxy: str | None = None,
    timeout: float = TIMEOUT,
) -> None:
    """Log a session out and delete it. A session that WhatsApp has ended already is only deleted.

    Raises SharddError when the logout fails; the session is kept then (`forget_session` deletes it all the same).
    """
    request = {
        "dsn": sessions_dsn,
        "pgbouncer": pgbouncer,
        "jid": jid,
        "proxy": proxy,
        "hearing": asdict(hearing),
    }
    event = [event async for event in oneshot.converse(MODULE, request, timeout=timeout)][-1]
    if event["event"] != "unlinked":
        raise SharddError(f"session {jid} could not be logged out: {event['reason']}")


async def forget_session(sessions_dsn: str, jid: str) -> None:
    """Delete a session from the store without a logout: the phone still lists it. Raises DatabaseError."""
    store = SessionStore(sessions_dsn)
    try:
        await store.delete_session(jid)
    finally:
        await store.close()


class _Listener:
    """Keeps the messages, and ignores the client's other events: a failure also ends the call in flight."""

    def __init__(self, arrivals: Arrivals, device_id: str, losses: _Losses) -> None:
        self._arrivals = arrivals
        self._device_id = device_id
        self._losses = losses

    def ended(self, client: Any, failure: Any) -> None: ...

    def receipt(self, client: Any, message_ids: list[str], kind: str, at: float, by: int = 0) -> None: ...

    def message(self, client: Any, event: Any) -> Callable[[], None] | None:  # noqa: ARG002 - there is one client
        return self._arrivals.received(self._device_id, event)

    def lost_event(self, client: Any, text: str) -> None:  # noqa: ARG002 - the text names the device
        self._losses.defect(text)

    def restriction(self, client: Any, report: Any) -> None: ...


class _Losses:
    """The events of `Arrivals`: a message that could not be written, or not be read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def incoming(self, name: str | None, message: Incoming) -> int:
        if name is None:
            what = "an opt-out" if message.opt_out else "a message"
            self.texts.append(f"{what} from {' '.join(message.addresses)} could not be written to the disk")
        return 0

    def defect(self, text: str) -> None:
        self.texts.append(text)

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None: ...

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None: ...

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None: ...


def _listener(hearing: Hearing, losses: _Losses) -> _Listener:
    """Raises SharddError when the spool cannot be written to: then nothing may be received."""
    state_dir = Path(hearing.state_dir)
    try:
        _become_owner(state_dir)
    except OSError as error:
        raise SharddError(f"{NOT_KEPT}: state_dir {state_dir}: {error.strerror}") from None
    spool = IncomingSpool(state_dir)
    if (flaw := spool.probe()) is not None:
        raise SharddError(f"{NOT_KEPT}: {flaw}")
    words = OptOutWords(hearing.opt_out_words, hearing.take_back_words)
    return _Listener(Arrivals(OptOuts(words, Directory()), spool, hearing.include, losses), hearing.device_id, losses)


def _become_owner(state_dir: Path) -> None:
    """Run on as the account of the daemon, which accepts only its own files. Only root can. Raises OSError."""
    owner = state_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


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
    hearing, losses = Hearing(**request["hearing"]), _Losses()
    listener = _listener(hearing, losses)
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
        await client.heard_all()
        if losses.texts:
            raise SharddError("; ".join(losses.texts))
        await client.call(client.handle.logout, CONNECT_TIMEOUT)
    except ClientFailedError as error:
        if error.failure.state is not DeviceState.LOGGED_OUT:
            raise SharddError(error.failure.text) from None
    except (NeonizeError, TimeoutError) as error:
        raise SharddError(str(error) or "WhatsApp did not answer") from None
    finally:
        await asyncio.wait([asyncio.ensure_future(client.close())], timeout=CONNECT_TIMEOUT)
    await store.delete_session(request["jid"])
    report({"event": "unlinked"})


if __name__ == "__main__":
    oneshot.run(_unlink)
