"""Previews of images, made in a child process: one at a time, with limits on memory and time.

The worker itself cannot set such limits: a thread cannot be stopped, and a progressive JPEG of 150 kB can keep a decoder busy
for half a minute, one of 1.5 MB for five. The child is reused for the next image and exits after a while without any. An
image whose preview is not ready in time is sent without one.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from contextlib import suppress
from typing import Final

import msgspec

from shardd.logs import get_logger
from shardd.transports.whatsapp.media.picture import Picture

log = get_logger(__name__)

MEMORY: Final = 192 * 1024 * 1024
"""Bytes for decoding: 24 million pixels of a PNG take 96 MB."""
MAX_IMAGE: Final = 32 * 1024 * 1024
"""Bytes of an image, which the child holds as well."""
SECONDS: Final = 10.0
"""For one image, including the start of the child."""
PATIENCE: Final = 10.0
"""Seconds that an image waits for its turn."""
IDLE: Final = 60.0
"""Seconds without an image after which the child exits."""
MAX_ANSWER: Final = 64 * 1024
_KEPT: Final = ("PATH", "LD_LIBRARY_PATH")
"""Passed on from the environment, which may hold secrets."""


class Previews:
    """Makes the previews of one worker."""

    def __init__(self, *, memory: int = MEMORY, seconds: float = SECONDS, patience: float = PATIENCE) -> None:
        self._memory = memory
        self._seconds = seconds
        self._patience = patience
        self._busy = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def make(self, data: bytes) -> Picture | None:
        """Size and preview of an image; None when that would take too long or too much memory."""
        if len(data) > MAX_IMAGE:
            return None
        try:
            async with asyncio.timeout(self._patience):
                await self._busy.acquire()
        except TimeoutError:
            log.warning("image sent without preview: others take too long", action="preview")
            return None
        picture: Picture | None = None
        try:
            async with asyncio.timeout(self._seconds):
                picture = await self._ask(data)
        except (TimeoutError, OSError, EOFError, msgspec.MsgspecError) as error:
            ended = self._process and self._process.returncode
            log.warning("image sent without preview", action="preview", error=repr(error), exit_code=ended)
        finally:
            try:
                if picture is None or picture.preview is None:
                    # A late answer must not be taken for the next image's, and exhausted memory may be fragmented.
                    await self.close()
            finally:
                self._busy.release()
        return picture

    async def close(self) -> None:
        """Kill the child; the next image starts another."""
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # ---- inside

    async def _ask(self, data: bytes) -> Picture:
        if self._idle is not None:
            self._idle.cancel()
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None or process.stdin.is_closing():
            self._process = process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(struct.pack(">Q", len(data)))
        process.stdin.write(data)
        await process.stdin.drain()
        (length,) = struct.unpack(">I", await process.stdout.readexactly(4))
        if length > MAX_ANSWER:
            raise EOFError
        picture = msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Picture)
        self._idle = asyncio.get_running_loop().call_later(IDLE, process.stdin.close)
        return picture

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "shardd.transports.whatsapp.media.preview_process",
            str(self._memory + MAX_IMAGE),
            str(int(self._seconds)),
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
