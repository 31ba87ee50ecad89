"""Plain neonize, for comparison: a process that only connects, sends and closes.

It is as lean as a program can be that does the same: no gate, no journal, no row is looked at, no deadline, only the two kinds of
events that the work needs, and the library logs warnings only, like a worker's. What it needs in order not to break it does:
enough threads, a uuid for each client, no finalizers. Requests and answers are lines of JSON, one round each.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from neonize._binder import ProxySettings
from neonize.aioze import events
from neonize.aioze.client import NewAClient
from neonize.exc import NeonizeError
from neonize.proto.Neonize_pb2 import JID
from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message

Work = list[tuple[str, list[str], str]]
"""For each device: its JID, its recipients one message after the other, the text."""


class Plain:
    """The clients of this process."""

    def __init__(self, store: str, proxy: str, at_once: int) -> None:
        self._store, self._proxy = store, proxy
        self._at_once = asyncio.Semaphore(at_once)
        self._clients: dict[str, tuple[NewAClient, asyncio.Task[Any]]] = {}

    async def send(self, work: Work) -> None:
        """Send concurrently from all devices; those that are not connected connect first, a limited number at a time."""
        await asyncio.gather(*(self._send(*one) for one in work))

    async def close(self, jids: list[str]) -> None:
        """Close these devices' clients, a limited number at a time."""
        await asyncio.gather(*map(self._close, jids))

    async def _send(self, jid: str, recipients: list[str], text: str) -> None:
        if jid not in self._clients:
            async with self._at_once:
                await self._open(jid)
        client, _ = self._clients[jid]
        for recipient in recipients:
            await client.send_message(_jid(f"{recipient}@s.whatsapp.net"), Message(conversation=text))

    async def _open(self, jid: str) -> None:
        client = NewAClient(self._store, jid=_jid(jid))
        client.uuid = uuid.uuid4().hex.encode()
        client._stop_finalizer.detach()  # noqa: SLF001 - else it stops another client of the same number
        connected = asyncio.Event()

        async def is_connected(_client: NewAClient, _event: Any) -> None:
            connected.set()

        async def is_delivered(_client: NewAClient, _event: Any) -> None:
            pass

        client.event(events.ConnectedEv)(is_connected)
        client.event(events.ReceiptEv)(is_delivered)
        self._clients[jid] = client, await client.connect(ProxySettings(self._proxy))
        await connected.wait()

    async def _close(self, jid: str) -> None:
        async with self._at_once:
            client, running = self._clients.pop(jid)
            await client.stop()
            with suppress(NeonizeError):
                await running


def _jid(text: str) -> JID:
    user, _, server = text.partition("@")
    user, _, device = user.partition(":")
    return JID(User=user, Device=int(device or 0), RawAgent=0, Integrator=0, Server=server, IsEmpty=False)


async def main(answers: int) -> None:
    """Serve requests one after another until the input ends."""
    settings = json.loads(sys.argv[1])
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(settings.pop("threads")))
    events.event_global_loop = loop
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    plain = Plain(**settings)
    while line := await reader.readline():
        request = json.loads(line)
        await getattr(plain, request.pop("do"))(**request)
        os.write(answers, b"{}\n")


if __name__ == "__main__":
    logging.getLogger("neonize.utils.log").setLevel(logging.WARNING)
    logging.getLogger("whatsmeow").setLevel(logging.WARNING)
    kept = os.dup(1)
    os.dup2(2, 1)  # the library prints to standard output
    asyncio.run(main(kept))
    os._exit(0)
