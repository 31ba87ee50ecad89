"""A transport that delivers to nobody: for demos, benchmarks and the tests of everything around a transport.

It takes time, fails and hangs as configured, and appends every "delivered" message to a file, one JSON object per line, so
that order, duplicates and losses can be counted from outside. Its message ids begin with `sandbox-`.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError, PermanentError, TransientError
from shardd.ipc import DeviceSpec, JobSpec
from shardd.state_files import open_file
from shardd.transports.base import Events, Sent, Surroundings, Transport
from shardd.transports.details import read_details, read_target

if TYPE_CHECKING:
    from shardd.config.transports.sandbox import SandboxConfig

BLOAT_FOR: Final = 60.0
"""Seconds."""
HANG_FOR: Final = 3600.0
"""Seconds; the supervisor, which misses its heartbeat, ends it before."""
_encode = msgspec.json.Encoder().encode


class SandboxTransport(Transport):
    """See `shardd.config.transports.sandbox` for its settings."""

    def __init__(self, settings: SandboxConfig, surroundings: Surroundings, events: Events) -> None:
        self._settings = settings
        self._record: Path | None = None
        if settings.record and surroundings.record_dir is not None:
            self._record = surroundings.record_dir / f"shard-{surroundings.shard:03d}.jsonl"
        self._fd = -1

    async def start(self) -> None:
        """Open the record."""
        if self._record is not None:
            folder = self._record.parent
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._fd = open_file(folder.parent, f"{folder.name}/{self._record.name}", flags)

    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> None:
        """Take the configured time, and fail as often as configured; nothing has left."""
        read_details(job)
        if job.kind == "revoke":
            read_target(job)
        if self._settings.poison:
            await self._take_poison(job.body)
        if self._settings.connect_for > 0:
            await asyncio.sleep(self._settings.connect_for)
        if _hits(self._settings.unavailable_rate):
            text = f"sandbox: {device.id} is unreachable, as configured"
            raise DeviceUnavailableError(text, retry_after=1.0, error_class=ErrorClass.CONNECTION)
        if _hits(self._settings.permanent_rate):
            raise PermanentError(f"sandbox: {job.recipient} refused, as configured", error_class=ErrorClass.RECIPIENT)

    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Any) -> Sent:
        """Take the configured time, then record the message."""
        if (latest := self._settings.latency_max) > 0:
            await asyncio.sleep(random.uniform(self._settings.latency_min, latest))  # noqa: S311  # jitter, not a secret
        if _hits(self._settings.transient_rate):
            raise TransientError("sandbox: refused for now, as configured", error_class=ErrorClass.SERVER)
        message_id = f"sandbox-{job.id}-{job.attempt}"
        self._write(device, job, message_id)
        if _hits(self._settings.hang_rate):
            await asyncio.sleep(self._settings.hang_for)
        if _hits(self._settings.in_doubt_rate):
            raise InDoubtError("sandbox: no answer, as configured", error_class=ErrorClass.TIMEOUT)
        return Sent(message_id=message_id)

    async def close(self) -> None:
        """Close the record."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _take_poison(self, body: str) -> None:
        if "!crash" in body:
            # Like a panic of the library: at once.
            os.kill(os.getpid(), signal.SIGKILL)
        if "!hang" in body:
            time.sleep(HANG_FOR)  # noqa: ASYNC251  # the loop must block
        if "!bloat" in body:
            with mmap.mmap(-1, self._settings.poison_memory) as memory:
                for page in range(0, self._settings.poison_memory, mmap.PAGESIZE):
                    memory[page] = 1
                await asyncio.sleep(BLOAT_FOR)

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
            "revokes": job.revokes,
        }
        os.write(self._fd, _encode(line) + b"\n")


def _hits(rate: float) -> bool:
    return rate > 0 and random.random() < rate  # noqa: S311  # a coin, not a secret
