"""Plain neonize, for comparison: a process that only connects, sends and closes.

It is as lean as a program can be that does the same: no gate, no journal, no row is looked at, no deadline, only the two kinds of
events that the work needs, and the library logs warnings only, like a worker's. What it needs in order not to break it does:
enough threads, a uuid for each client, no finalizers. Requests and answers are lines of JSON, one round each; the first answer
says that everything is loaded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import time
import uuid
from collections.abc import Callable
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
Times = list[list[tuple[float, float]]]
"""For each device, of each message: when the device's turn to connect came, or the call of an open client; when it was sent."""


class Plain:
    """The clients of this process."""

    def __init__(self, store: str, proxy: str, at_once: int) -> None:
        self._store, self._proxy = store, proxy
        self._at_once = asyncio.Semaphore(at_once)
        self._clients: dict[str, tuple[NewAClient, asyncio.Task[Any]]] = {}

    async def send(self, work: Work, gap: tuple[float, float] = (0.0, 0.0)) -> Times:
        """Send concurrently from all devices; those that are not connected connect first, a limited number at a time.

        `gap`: the least and the most seconds before each message, but for the first of a device that connects.
        """
        return await asyncio.gather(*(self._send(*one, *gap) for one in work))

    async def close(self, jids: list[str]) -> None:
        """Close these devices' clients, a limited number at a time."""
        await asyncio.gather(*map(self._close, jids))

    async def _send(
        self, jid: str, recipients: list[str], text: str, least: float, most: float
    ) -> list[tuple[float, float]]:
        times = []
        began = 0.0
        if jid not in self._clients:
            async with self._at_once:
                began = time.time()
                await self._open(jid)
        client, _ = self._clients[jid]
        for recipient in recipients:
            if not began:
                if most:
                    await asyncio.sleep(random.uniform(least, most))
                began = time.time()
            await client.send_message(_jid(f"{recipient}@s.whatsapp.net"), Message(conversation=text))
            times.append((began, time.time()))
            began = 0.0
        return times

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


async def main(answer: Callable[[Any], None]) -> None:
    """Serve requests one after another until the input ends."""
    settings = json.loads(sys.argv[1])
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(settings.pop("threads")))
    events.event_global_loop = loop
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    plain = Plain(**settings)
    answer("ready")
    while line := await reader.readline():
        request = json.loads(line)
        answer(await getattr(plain, request.pop("do"))(**request))


if __name__ == "__main__":
    logging.getLogger("neonize.utils.log").setLevel(logging.WARNING)
    logging.getLogger("whatsmeow").setLevel(logging.WARNING)
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library prints to standard output
    asyncio.run(main(lambda what: print(json.dumps(what), file=kept, flush=True)))
    os._exit(0)
