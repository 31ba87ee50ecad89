"""Child processes that analyse files: one file at a time, with limits on memory and time.

The worker itself cannot set such limits: a thread cannot be stopped, and a progressive JPEG of 150 kB can keep a decoder busy
for half a minute, one of 1.5 MB for five. A child is reused for the next file and exits after a while without any. A file whose
analysis is not ready in time is sent without it.

To the child: a length (8 bytes, big endian) and a hint's (1 byte), the hint, the file. Back: 4 bytes of length and the answer
in msgpack. `limited_child` is the other end.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec

from shardd.logs import get_logger

log = get_logger(__name__)

MEMORY: Final = 192 * 1024 * 1024
"""Bytes for decoding: 24 million pixels of a PNG take 96 MB."""
SECONDS: Final = 10.0
"""For one file, including the start of the child."""
PATIENCE: Final = 30.0
"""Seconds that a file waits for its turn: no file is blamed for those before it, even where the processors are busy."""
IDLE: Final = 60.0
"""Seconds without a file after which the child exits."""
MAX_ANSWER: Final = 64 * 1024
_KEPT: Final = ("PATH", "LD_LIBRARY_PATH")
"""Passed on from the environment, which may hold secrets."""

Answer = TypeVar("Answer", bound=msgspec.Struct)


class LimitedProcess(Generic[Answer]):
    """One such process of a worker."""

    def __init__(
        self,
        module: str,
        answer: type[Answer],
        *,
        without: str,
        max_bytes: int,
        memory: int = MEMORY,
        seconds: float = SECONDS,
        patience: float = PATIENCE,
    ) -> None:
        """`module`: what the child runs. `without`: how the log calls a message whose file was not analysed.

        `max_bytes`: of a file, which the child holds as well; `memory`: bytes for its decoding.
        """
        self._module = module
        self._answer = answer
        self._without = without
        self._max_bytes = max_bytes
        self._memory = memory
        self._seconds = seconds
        self._patience = patience
        self._busy = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Kill the child; the next file starts another."""
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def complete(self, answer: Answer) -> bool:  # noqa: ARG002 - a subclass looks at it
        """Whether nothing failed in the child. Otherwise it is not used again: exhausted memory may be fragmented."""
        return True

    async def analyse(self, data: bytes, hint: str = "") -> Answer | None:
        """What the child finds in a file; None when that would take too long or too much memory."""
        if len(data) > self._max_bytes:
            log.info(self._without, action="preview", error=f"of {len(data)} bytes, more than {self._max_bytes}")
            return None
        try:
            async with asyncio.timeout(self._patience):
                await self._busy.acquire()
        except TimeoutError:
            log.warning(self._without, action="preview", error="others take too long")
            return None
        answer: Answer | None = None
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._ask(data, hint.encode())
        except (TimeoutError, OSError, EOFError, msgspec.MsgspecError) as error:
            ended = self._process and self._process.returncode
            log.warning(self._without, action="preview", error=repr(error), exit_code=ended)
        finally:
            try:
                if answer is None or not self.complete(answer):
                    # A late answer must not be taken for the next file's.
                    await self.close()
            finally:
                self._busy.release()
        return answer

    # ---- inside

    async def _ask(self, data: bytes, hint: bytes) -> Answer:
        if self._idle is not None:
            self._idle.cancel()
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None or process.stdin.is_closing():
            self._process = process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(struct.pack(">QB", len(data), len(hint)) + hint)
        process.stdin.write(data)
        await process.stdin.drain()
        (length,) = struct.unpack(">I", await process.stdout.readexactly(4))
        if length > MAX_ANSWER:
            raise EOFError
        answer = msgspec.msgpack.decode(await process.stdout.readexactly(length), type=self._answer)
        self._idle = asyncio.get_running_loop().call_later(IDLE, process.stdin.close)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            self._module,
            str(self._memory + self._max_bytes),
            str(int(self._seconds)),
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
