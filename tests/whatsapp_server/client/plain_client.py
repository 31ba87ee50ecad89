"""Plain neonize in its own process, controlled by lines of JSON: the library used as its documentation describes.

The server's tests use it, and benchmarks compare the product with it. A request on standard input is
``{"id": n, "do": method, "client": name, …}``; answers and events go to standard output. ``process`` is the other end.
Three workarounds for the library are here: a process that was exec'd, a large executor, and client uuids of our own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import sys
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # ships no types
from neonize._binder import ProxySettings
from neonize.aioze import events
from neonize.aioze.client import NewAClient
from neonize.exc import NeonizeError
from neonize.proto.Neonize_pb2 import JID
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message
from neonize.utils.enum import Presence

THREADS = 1200
ANSWERS = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # neonize and its Go code print to standard output
EVENTS = (
    events.ConnectedEv,
    events.DisconnectedEv,
    events.PairStatusEv,
    events.LoggedOutEv,
    events.StreamReplacedEv,
    events.StreamErrorEv,
    events.TemporaryBanEv,
    events.ConnectFailureEv,
    events.ClientOutdatedEv,
    events.KeepAliveTimeoutEv,
    events.ReceiptEv,
    events.OfflineSyncCompletedEv,
)


def say(**line: Any) -> None:
    """Write one line of JSON to the controlling process."""
    ANSWERS.write(json.dumps(line) + "\n")
    ANSWERS.flush()


def process_cost() -> dict[str, float]:
    """CPU seconds, resident bytes, threads and open files of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    own = Path("/proc/self")
    return {
        "cpu": used.ru_utime + used.ru_stime,
        "rss": int((own / "statm").read_text().split()[1]) * resource.getpagesize(),
        "threads": sum(1 for _ in (own / "task").iterdir()),
        "fds": sum(1 for _ in (own / "fd").iterdir()),
    }


def address(text: str) -> JID:
    """Parse ``user[:device]@server``; a number alone is a phone's address."""
    user, _, server = text.partition("@")
    user, _, device = user.partition(":")
    return JID(
        User=user, Device=int(device or 0), RawAgent=0, Integrator=0, Server=server or "s.whatsapp.net", IsEmpty=False
    )


class PlainClients:
    """The open clients of this process, by name. Each public method can be requested."""

    def __init__(self) -> None:
        self._clients: dict[str, tuple[NewAClient, asyncio.Task[Any]]] = {}
        self._received: dict[str, Message] = {}

    async def open(self, client: str, *, store: str, proxy: str, jid: str = "") -> None:
        """Start connecting; events report the outcome. Without ``jid`` a new device is to be paired: ``qr`` events follow."""
        neonize = NewAClient(store, jid=address(jid) if jid else None, new_device=not jid)
        neonize.uuid = uuid.uuid4().hex.encode()
        neonize._stop_finalizer.detach()
        for kind in EVENTS:
            neonize.event(kind)(_reporter(client, kind.__name__))
        neonize.event(events.MessageEv)(self._receiver(client))

        async def show_code(_neonize: NewAClient, code: bytes) -> None:
            say(event="qr", client=client, details={"code": code.decode()})

        neonize.event.qr(show_code)
        self._clients[client] = (neonize, await neonize.connect(ProxySettings(proxy)))

    async def close(self, client: str) -> None:
        """Stop a client and wait until its thread has ended."""
        neonize, task = self._clients.pop(client)
        await neonize.stop()
        with contextlib.suppress(NeonizeError):
            await task

    async def pair_phone(self, client: str, number: str) -> str:
        """Request a pairing code, which the owner of ``number`` has to type."""
        return str(await self._clients[client][0].PairPhone(number, show_push_notification=True))

    async def send(self, client: str, to: str, text: str) -> str:
        """Send a text; returns the message id."""
        return str((await self._clients[client][0].send_message(address(to), Message(conversation=text))).ID)

    async def send_as(self, client: str, to: str, text: str, message_id: str) -> str:
        """Send a text under an id of our own, if the library lets us."""
        neonize: Any = self._clients[client][0]
        return str((await neonize.send_message(address(to), Message(conversation=text), message_id=message_id)).ID)

    async def presence(self, client: str) -> None:
        """Show the account as available."""
        await self._clients[client][0].send_presence(Presence.AVAILABLE)

    async def is_running(self, client: str) -> bool:
        """Whether the client's thread still runs."""
        return not self._clients[client][1].done()

    async def fail_in_handlers(self, client: str) -> None:
        """Raise an exception whenever a receipt comes, after the event `failing`."""

        async def fail(_neonize: NewAClient, _event: Any) -> None:
            say(event="failing", client=client, details={})
            raise RuntimeError("of a handler")

        self._clients[client][0].event(events.ReceiptEv)(fail)

    async def send_image(self, client: str, to: str, data: str, caption: str = "") -> str:
        """Send a picture (base64); returns the message id."""
        picture = base64.b64decode(data)
        return str((await self._clients[client][0].send_image(address(to), picture, caption=caption)).ID)

    async def send_document(self, client: str, to: str, data: str, file_name: str) -> str:
        """Send a file (base64); returns the message id."""
        document = base64.b64decode(data)
        return str((await self._clients[client][0].send_document(address(to), document, filename=file_name)).ID)

    async def download(self, client: str, message_id: str) -> str:
        """The file of a received message, as base64."""
        plain = await self._clients[client][0].download_any(self._received[message_id])
        return base64.b64encode(plain).decode()

    async def on_whatsapp(self, client: str, number: str) -> bool:
        """Whether the number is on WhatsApp."""
        answers = await self._clients[client][0].is_on_whatsapp(number)
        return all(answer.IsIn for answer in answers)

    async def probe(self, client: str) -> None:
        """One small round trip."""
        await self._clients[client][0].set_passive(False)

    async def logout(self, client: str) -> None:
        """Unlink the device from its account."""
        await self._clients[client][0].logout()

    async def usage(self) -> dict[str, float]:
        """CPU seconds, resident bytes, threads and open files of this process."""
        return process_cost()

    def _receiver(self, name: str) -> Callable[[NewAClient, Any], Awaitable[None]]:
        async def receive(_neonize: NewAClient, event: Any) -> None:
            self._received[event.Info.ID] = event.Message
            text = event.Message.conversation or event.Message.extendedTextMessage.text
            source = event.Info.MessageSource
            details = {"id": event.Info.ID, "text": text, "chat": source.Chat.User, "sender": source.Sender.User}
            say(event="Message", client=name, details=details | {"timestamp": event.Info.Timestamp})

        return receive


def _reporter(name: str, kind: str) -> Callable[[NewAClient, Any], Awaitable[None]]:
    async def report(_neonize: NewAClient, event: Any) -> None:
        say(event=kind, client=name, details=MessageToDict(event))

    return report


async def answer(clients: PlainClients, request: dict[str, Any]) -> None:
    """Handle one request and write its result."""
    number, name = request.pop("id"), request.pop("do")
    try:
        result = await getattr(clients, name)(**request)
    except Exception as error:  # noqa: BLE001 - a test asserts on whatever the library raises
        say(id=number, error=f"{type(error).__name__}: {error}")
    else:
        say(id=number, result=result)


async def main() -> None:
    """Serve requests concurrently until standard input ends."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    events.event_global_loop = loop
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients, tasks = PlainClients(), set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(clients, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)  # a client that hangs inside Go would keep the interpreter from ending


if __name__ == "__main__":
    asyncio.run(main())
