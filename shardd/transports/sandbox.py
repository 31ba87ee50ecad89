"""A stand-in that delivers to nobody: for demos, benchmarks and the tests of everything around a transport.

It takes time, fails and hangs as its settings say, and appends every message that it "delivered" to a file, one JSON
object a line, so that order, duplicates and losses can be counted from outside. Its message ids begin with `sandbox-`.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError, PermanentError, TransientError
from shardd.ipc import DeviceSpec, JobSpec
from shardd.state_files import open_file
from shardd.transports.base import Events, Sent, Transport
from shardd.transports.details import read_details

BLOAT_FOR: Final = 60.0
"""Seconds."""
HANG_FOR: Final = 3600.0
"""Seconds; whoever waits for its heartbeat ends it before."""
_encode = msgspec.json.Encoder().encode


class SandboxTransport(Transport):
    """See `shardd.config.transports.sandbox` for its settings; `record_dir` and `shard` come from the worker."""

    def __init__(self, settings: dict[str, Any], events: Events) -> None:
        self._latency = (float(settings.get("latency_min", 0)), float(settings.get("latency_max", 0)))
        self._connect_for = float(settings.get("connect_for", 0))
        self._rates = {
            what: float(settings.get(f"{what}_rate", 0)) for what in ("permanent", "transient", "unavailable")
        }
        self._in_doubt_rate = float(settings.get("in_doubt_rate", 0))
        self._hang_rate = float(settings.get("hang_rate", 0))
        self._hang_for = float(settings.get("hang_for", 0))
        self._poison = bool(settings.get("poison", False))
        self._poison_memory = int(settings.get("poison_memory", 0))
        self._record: Path | None = None
        if settings.get("record", True) and settings.get("record_dir"):
            self._record = Path(settings["record_dir"]) / f"shard-{settings['shard']:03d}.jsonl"
        self._fd = -1
        self._events = events

    async def start(self) -> None:
        """Open the record."""
        if self._record is not None:
            folder = self._record.parent
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._fd = open_file(folder.parent, f"{folder.name}/{self._record.name}", flags)

    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> None:
        """Take the configured time, and fail as often as the settings say; nothing has left."""
        read_details(job)
        if self._poison:
            await self._take_poison(job.body)
        if self._connect_for > 0:
            await asyncio.sleep(self._connect_for)
        if self._hits(self._rates["unavailable"]):
            text = f"sandbox: {device.id} is out of reach, as configured"
            raise DeviceUnavailableError(text, retry_after=1.0, error_class=ErrorClass.CONNECTION)
        if self._hits(self._rates["permanent"]):
            raise PermanentError(f"sandbox: {job.recipient} refused, as configured", error_class=ErrorClass.RECIPIENT)

    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Any) -> Sent:
        """Take the configured time, then record the message."""
        if self._latency[1] > 0:
            await asyncio.sleep(random.uniform(*self._latency))  # noqa: S311  # jitter, not a secret
        if self._hits(self._rates["transient"]):
            raise TransientError("sandbox: refused for now, as configured", error_class=ErrorClass.SERVER)
        message_id = f"sandbox-{job.id}-{job.attempt}"
        self._write(device, job, message_id)
        if self._hits(self._hang_rate):
            await asyncio.sleep(self._hang_for)
        if self._hits(self._in_doubt_rate):
            raise InDoubtError("sandbox: no answer, as configured", error_class=ErrorClass.TIMEOUT)
        return Sent(message_id=message_id)

    async def close(self) -> None:
        """Close the record."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _take_poison(self, body: str) -> None:
        if "!crash" in body:
            # As a panic of a library does: at once, without another line of ours.
            os.kill(os.getpid(), signal.SIGKILL)
        if "!hang" in body:
            time.sleep(HANG_FOR)  # noqa: ASYNC251  # the loop must stand still
        if "!bloat" in body:
            with mmap.mmap(-1, self._poison_memory) as memory:
                for page in range(0, self._poison_memory, mmap.PAGESIZE):
                    memory[page] = 1
                await asyncio.sleep(BLOAT_FOR)

    @staticmethod
    def _hits(rate: float) -> bool:
        return rate > 0 and random.random() < rate  # noqa: S311  # a coin, not a secret

    def _write(self, device: DeviceSpec, job: JobSpec, message_id: str) -> None:
        if self._fd < 0:
            return
        line = {
            "at": time.time(),
            "device": device.id,
            "job": job.id,
            "attempt": job.attempt,
            "recipient": job.recipient,
            "kind": job.kind,
            "body": job.body,
            "message_id": message_id,
        }
        os.write(self._fd, _encode(line) + b"\n")
