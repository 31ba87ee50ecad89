"""Reads what a page says about itself, in a child process for each page: a thread could not be stopped."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import suppress
from typing import Final

import msgspec

from shardd.transports.whatsapp.links import page_process

SECONDS: Final = 3.0
"""For one page, including the start of the child."""
CPU_SECONDS: Final = 2
MEMORY: Final = 96 * 1024 * 1024
"""Bytes: 512 KiB that are one tag with 260,000 attributes take 60 MB."""
_KEPT: Final = ("PATH", "LD_LIBRARY_PATH")
"""Passed on from the environment, which may hold secrets."""
_LABEL: Final = re.compile(r"[A-Za-z0-9_:.-]{1,40}")


class PageInfo(msgspec.Struct, frozen=True):
    """In one line each; empty: the page does not say. `image`: a URL, perhaps relative."""

    title: str
    description: str
    image: str


async def read_page(data: bytes, charset: str | None) -> PageInfo | None:
    """What the first bytes of a page say; None when that cannot be found out in time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        page_process.__file__,
        str(CPU_SECONDS),
        str(MEMORY),
        charset if charset and _LABEL.fullmatch(charset) else "",
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(SECONDS):
            answer, _ = await process.communicate(data)
        return msgspec.json.decode(answer, type=PageInfo)
    except (TimeoutError, OSError, msgspec.MsgspecError):
        return None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
