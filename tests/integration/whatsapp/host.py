"""A process with only the transport, controlled by lines of JSON: a worker without a supervisor.

neonize reads its environment once, at the start of a process, so a test cannot load it itself. What the Go library prints to
the standard output must not get between the answers: those go to a copy of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop

from shardd.config import TransportsConfig
from shardd.errors import DeviceUnavailableError, SendError, TransientError
from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.ipc import DeviceSpec, JobSpec, StoreAccess
from shardd.opt_out_words import OptOutWords
from shardd.transports.base import Surroundings
from shardd.transports.whatsapp.clients.client import Client
from shardd.transports.whatsapp.transport import WhatsappTransport


class SlowSpool(IncomingSpool):
    """On a disk that is slow: the library's queue fills, as it would there."""

    def __init__(self, state_dir: Path, delay: float) -> None:
        super().__init__(state_dir)
        self._delay = delay

    def keep(self, message: Incoming) -> str:
        time.sleep(self._delay)
        return super().keep(message)


class Host:
    """The transport, and the events that it reports."""

    def __init__(self, settings: dict[str, Any], answers: int) -> None:
        """`settings`: options of the transport, fields of its surroundings, and of its spool: `state_dir`, `slow_disk` (s)."""
        given = {
            field: settings.pop(field) for field in ("sessions_dsn", "opt_out_words", "inbox") if field in settings
        }
        slow_disk = settings.pop("slow_disk", 0.0)
        if state_dir := settings.pop("state_dir", None):
            given["spool"] = SlowSpool(Path(state_dir), slow_disk)
        if (clients := settings.pop("clients_with_connections", None)) is not None:
            given["store_access"] = StoreAccess(clients=clients, scarce=True)
        if "opt_out_words" in given:
            given["opt_out_words"] = OptOutWords(given["opt_out_words"])
        section = {**TransportsConfig().as_plain()["whatsapp"], **settings}
        self._answers = answers
        self._arrived = 0
        self._transport = WhatsappTransport(SimpleNamespace(**section), Surroundings(**given), self)
        self._locks: dict[str, asyncio.Lock] = {}
        self._sending: asyncio.Task[Any] | None = None

    # ---- Events

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        self._say({"event": "device_changed", "device": device_id, "state": state, "reason": reason, "until": until})

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        self._say({"event": "receipt", "device": device_id, "ids": message_ids, "kind": kind, "at": at})

    def incoming(self, name: str | None, message: Incoming) -> int:
        kind = "opted_out" if message.opt_out else "incoming"
        words = {"recipients": message.addresses, "words": message.text, "at": message.at}
        self._say({"event": kind, "device": message.device_id, "name": name, **words})
        self._arrived += 1
        return self._arrived

    def defect(self, text: str) -> None:
        self._say({"event": "defect", "text": text})

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        self._say({"event": "visited", "device": device_id, "online": online, "presence": presence, "note": note})

    def login_answered(self, device_id: str, *, outdated: bool) -> None:
        self._say({"event": "login_answered", "device": device_id, "outdated": outdated})

    def clients_changed(self, opened: list[str], closed: list[str], openings: int) -> None:
        self._say({"event": "clients_changed", "opened": opened, "closed": closed, "openings": openings})

    # ---- requests

    async def start(self) -> None:
        await self._transport.start()

    async def send(self, device: dict[str, Any], job: dict[str, Any], *, late: bool = False) -> dict[str, Any]:
        """fetch, prepare, deliver, in the order and under the lock of a worker.

        `late`: it is cancelled, as by `send_timeout`, while the client of the message is being closed.
        """
        spec = DeviceSpec(**{"transport": "whatsapp", **device})
        work = JobSpec(**{"id": 1, "epoch": 1, "attempt": 1, "token": 1, "device_id": spec.id, **job})
        step = "fetch"
        self._sending = asyncio.current_task()
        try:
            fetched = await self._transport.fetch(spec, work)
            try:
                async with self._locks.setdefault(spec.id, asyncio.Lock()):
                    step = "prepare"
                    prepared = await self._transport.prepare(spec, work, fetched)
                    step = "deliver"
                    if late:
                        _cancel_at_close(prepared.client)
                    sent = await self._transport.deliver(spec, work, prepared)
            finally:
                self._transport.discard(fetched)
        except asyncio.CancelledError:
            return {"step": step, "error": "cancelled"}
        except SendError as error:
            told: dict[str, Any] = {"step": step, "error": type(error).__name__, "text": str(error)}
            if isinstance(error, DeviceUnavailableError):
                told |= {"state": error.state, "until": error.until and error.until.timestamp()}
            if isinstance(error, DeviceUnavailableError | TransientError):
                told |= {"retry_after": error.retry_after}
            return told
        return {"message_id": sent.message_id}

    async def cancel(self) -> None:
        """Cancel the latest send, as `send_timeout` does."""
        assert self._sending is not None
        self._sending.cancel()

    async def hold_logins(self) -> None:
        self._transport.hold_logins(held=True)

    async def visit(self, device: dict[str, Any], *, late: bool = False, probe: bool = False) -> str | None:
        """Returns the error, if there is one."""
        spec = DeviceSpec(**{"transport": "whatsapp", **device})
        try:
            async with self._transport.visit_turn(), self._locks.setdefault(spec.id, asyncio.Lock()):
                await self._transport.visit(spec, late=late, probe=probe)
        except DeviceUnavailableError as error:
            return str(error)
        return None

    async def close_device(self, device: str) -> None:
        await self._transport.close_device(device)

    async def close(self) -> None:
        await self._transport.close()

    async def counts(self) -> dict[str, int]:
        """Resources of this process."""
        return {
            "open": self._transport.open_clients(),
            "connects": self._transport.connects(),
            "threads": threading.active_count(),
            "fds": len(list(Path("/proc/self/fd").iterdir())),  # noqa: ASYNC240 - not a disk
            "tasks": len(asyncio.all_tasks()),
            "media": self._transport._media._memory.held,
        }

    # ---- the line

    async def serve(self, reader: asyncio.StreamReader) -> None:
        tasks = set()
        while line := await reader.readline():
            task = asyncio.create_task(self._do(json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _do(self, request: dict[str, Any]) -> None:
        number, what = request.pop("request"), request.pop("do")
        try:
            self._say({"request": number, "result": await getattr(self, what)(**request)})
        except Exception as error:  # noqa: BLE001 - the test is told, and fails
            self._say({"request": number, "failed": repr(error)})

    def _say(self, words: dict[str, Any]) -> None:
        os.write(self._answers, json.dumps(words).encode() + b"\n")


def _cancel_at_close(client: Client) -> None:
    """Cancel the running task once it waits for the client's end."""
    task, close = asyncio.current_task(), client.close
    assert task is not None

    async def closing() -> bool:
        task.cancel()
        return await close()

    client.close = closing  # type: ignore[method-assign] # the very moment, which no event shows


async def main(answers: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await Host(json.loads(sys.argv[1]), answers).serve(reader)


if __name__ == "__main__":
    kept = os.dup(1)
    os.dup2(2, 1)
    uvloop.run(main(kept))
    os._exit(0)
