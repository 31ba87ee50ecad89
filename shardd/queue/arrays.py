"""Arrays as PostgreSQL writes them, as text.

The router sends ten thousands of array elements a second. psycopg looks at each element of a list to find its type; a text that
the statement casts (`%(ids)s::bigint[]`) costs a quarter of that.
"""

from __future__ import annotations

from collections.abc import Iterable


def integers(values: Iterable[int]) -> str:
    """As `{1,2,3}`."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str | None]) -> str:
    r"""As `{"a","b \"c\"",NULL}`: always in quotes, so that no text is taken for a NULL or a brace."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
