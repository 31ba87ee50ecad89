"""SQL statements read from files.

A statement stands under a line `-- name: claim_jobs` and comment lines that describe it, and reaches to the next name. Its
parameters are psycopg's, `%(device)s`; a percent sign that is none is doubled. The description stays out of what is sent:
the server would parse it each time, and psycopg would look for parameters in it.
"""

from __future__ import annotations

import re
from importlib.resources.abc import Traversable

_NAME = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)


def load_queries(file: Traversable) -> dict[str, bytes]:
    """Statements of one file, by name, as the bytes that psycopg takes without copying."""
    pieces = _NAME.split(file.read_text(encoding="utf-8"))
    queries: dict[str, bytes] = {}
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        lines = text.splitlines()
        while lines and (not lines[0].strip() or lines[0].startswith("--")):
            del lines[0]
        statement = "\n".join(lines).strip().removesuffix(";")
        if not statement or name in queries:
            raise ValueError(f"{file.name}: query {name} is {'there twice' if statement else 'empty'}")
        queries[name] = statement.encode()
    return queries
