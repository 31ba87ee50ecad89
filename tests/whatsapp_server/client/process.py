"""Controls a ``plain_client`` process: starts it, sends it requests, and waits for events of its clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..launch import IMPORT_ROOT, PACKAGE, ServerProcess

LIBRARY_SETTINGS = {"NEONIZE_BOT_TAG": "off"}
DEADLINE = 60.0
MAX_LINE = 1 << 26


class ClientError(Exception):
    """neonize raised an exception; the text is its class and message."""


@dataclass(frozen=True)
class ClientEvent:
    """An event of a client; ``kind`` is the name of neonize's event class without ``Ev``, or ``qr``."""

    kind: str
    client: str
    details: dict[str, Any]


class ClientProcess:
    """A child process that runs the real neonize with any number of named clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: list[ClientEvent] = []
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, server: ServerProcess, log: Path, settings: Mapping[str, str] = LIBRARY_SETTINGS
    ) -> ClientProcess:
        """Start a process that trusts ``server``; neonize's output goes to ``log``. ``settings``: of its environment."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"{PACKAGE}.client.plain_client",
                cwd=IMPORT_ROOT,
                env={**server.client_environment(), **settings},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=MAX_LINE,
            )
        return cls(process)

    async def call(self, do: str, *, deadline: float = DEADLINE, **parameters: Any) -> Any:
        """Call a method of ``PlainClients`` in the process and return its result.

        Raises:
            ClientError: neonize raised an exception.
            TimeoutError: No answer within ``deadline`` seconds.
        """
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None  # a pipe was asked for
        self._process.stdin.write(json.dumps({"id": number, "do": do, **parameters}).encode() + b"\n")
        try:
            return await asyncio.wait_for(self._answers[number], deadline)
        finally:
            del self._answers[number]

    async def event(
        self,
        kind: str,
        client: str,
        *,
        deadline: float = DEADLINE,
        where: Callable[[dict[str, Any]], bool] = lambda _details: True,
    ) -> ClientEvent:
        """Wait for the next event of that kind. Each event is returned once; events of other kinds stay in the queue.

        Raises:
            TimeoutError: None came within ``deadline`` seconds.
        """

        def find() -> ClientEvent | None:
            for event in self._events:
                if event.kind == kind and event.client == client and where(event.details):
                    return event
            return None

        async with asyncio.timeout(deadline), self._changed:
            while (found := find()) is None:
                await self._changed.wait()
            self._events.remove(found)
            return found

    def seen(self, kind: str, client: str) -> list[ClientEvent]:
        """Events of that kind that ``event`` has not returned yet."""
        return [event for event in self._events if event.kind == kind and event.client == client]

    async def ended(self, deadline: float = DEADLINE) -> int:
        """Wait until the process has ended by itself; returns its exit code.

        Raises:
            TimeoutError: It still runs after ``deadline`` seconds.
        """
        return await asyncio.wait_for(self._process.wait(), deadline)

    async def stop(self) -> None:
        """Kill the process."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None  # a pipe was asked for
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "event" in said:
                event = ClientEvent(said["event"].removesuffix("Ev"), said["client"], said["details"])
                async with self._changed:
                    self._events.append(event)
                    self._changed.notify_all()
            elif said["id"] in self._answers and not self._answers[said["id"]].done():
                answer = self._answers[said["id"]]
                answer.set_exception(ClientError(said["error"])) if "error" in said else answer.set_result(
                    said["result"]
                )
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ClientError("the client process ended"))
