"""Text of other systems, as UTF-8 and PostgreSQL can hold it."""

from __future__ import annotations


def storable(text: str, most: int) -> str:
    """The text without NUL and halves of surrogate pairs; at most `most` characters."""
    if text.isascii() and "\0" not in text and len(text) <= most:
        return text
    return text[:most].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
