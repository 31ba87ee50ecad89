"""The statements by which a connection is made ready (`session.sql`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from shardd.postgres.sql_files import load_queries


@cache
def session_queries() -> dict[str, bytes]:
    """By name."""
    return load_queries(files("shardd.postgres").joinpath("session.sql"))
