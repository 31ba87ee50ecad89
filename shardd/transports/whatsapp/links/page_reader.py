"""What a page says about itself, read in a child process."""

from __future__ import annotations

import re
from typing import Final

from shardd.transports.whatsapp.links.page_info import PageInfo
from shardd.transports.whatsapp.media.limited_process import LimitedProcess

MAX_PAGE: Final = 512 * 1024
"""Bytes of a page that are read; what it says about itself is at its beginning."""
SECONDS: Final = 5.0
"""For one page, including the start of the child."""
MEMORY: Final = 96 * 1024 * 1024
"""Bytes: 512 KiB that are one tag with 260,000 attributes take 60 MB."""
_CHARSET: Final = re.compile(r"[A-Za-z0-9_:.-]{1,40}")


class PageReader(LimitedProcess[PageInfo]):
    """Reads the pages of one worker."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        super().__init__(
            "shardd.transports.whatsapp.links.page_process",
            PageInfo,
            without="text sent without link preview",
            max_bytes=MAX_PAGE,
            memory=MEMORY,
            seconds=seconds,
        )

    async def read(self, data: bytes, charset: str | None) -> PageInfo | None:
        """What the first bytes of a page say; `charset`: of the HTTP header. None when that takes too long."""
        return await self.analyse(data, charset if charset and _CHARSET.fullmatch(charset) else "")
