"""What the child process reports about a page."""

from __future__ import annotations

import msgspec


class PageInfo(msgspec.Struct, frozen=True):
    """Each in one line; empty: the page does not say. `image`: a URL, perhaps relative."""

    title: str = ""
    description: str = ""
    image: str = ""
