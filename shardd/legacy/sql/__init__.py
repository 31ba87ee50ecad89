"""The statements that read an old database, one a file; each begins with a comment that says what it is for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def load(name: str) -> LiteralString:
    """The text of `NAME.sql` of this folder."""
    return (files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
