"""Controls a `host` process: starts it, sends requests, collects events."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path
from typing import Any

DEADLINE = 60.0


class HostProcess:
    """A child process with the transport."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, settings: dict[str, Any], environment: dict[str, str], log: Path) -> HostProcess:
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.whatsapp.host",
                json.dumps(settings),
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=1 << 26,
            )
        host = cls(process)
        await host.ask("start")
        return host

    async def ask(self, do: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"request": number, "do": do, **parameters}).encode() + b"\n")
        return await asyncio.wait_for(answer, DEADLINE)

    async def send(
        self, device: dict[str, Any], recipient: str, body: str = "hello", *, late: bool = False, **job: Any
    ) -> dict[str, Any]:
        """Send one job; returns its result. `late`: see `Host.send`."""
        job = {"recipient": recipient, "body": body, **job}
        told: dict[str, Any] = await self.ask("send", device=device, job=job, late=late)
        return told

    async def event(self, event: str, device: str | None = None, *, after: int = 0, **fields: Any) -> dict[str, Any]:
        """Wait for the first such event `after` so many; `device`: None for one of no single device."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **({} if device is None else {"device": device}), **fields}
            return next((seen for seen in self.events[after:] if wanted.items() <= seen.items()), None)

        async with asyncio.timeout(DEADLINE), self._news:
            while (seen := found()) is None:
                await self._news.wait()
            return seen

    async def until_events(self, count: int, event: str, device: str) -> None:
        """Wait until there are so many."""
        async with asyncio.timeout(DEADLINE), self._news:
            while sum(seen["event"] == event and seen["device"] == device for seen in self.events) < count:
                await self._news.wait()

    async def until(self, **counts: int) -> dict[str, int]:
        """Wait until the process's counts include these."""
        async with asyncio.timeout(DEADLINE):
            while not counts.items() <= (seen := await self.ask("counts")).items():  # noqa: ASYNC110 - another process's counts
                await asyncio.sleep(0.05)
            return dict(seen)

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if "request" in said:
                answer = self._answers.pop(said["request"])
                if answer.cancelled():
                    continue  # nobody waits for it any more
                if "failed" in said:
                    answer.set_exception(AssertionError(said["failed"]))
                else:
                    answer.set_result(said["result"])
                continue
            async with self._news:
                self.events.append(said)
                self._news.notify_all()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AssertionError(f"the process ended: {await self.process.wait()}"))
