"""SQL statements from files: those of a package are in the `*.sql` files of its folder `sql`.

A statement follows a line `-- name: claim_jobs` and comment lines that describe it, and extends to the next name. Its
parameters are psycopg's, `%(device)s`; any other percent sign is doubled. The description is not sent: the server would parse
it each time, and psycopg would look for parameters in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import LiteralString

_NAME = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)


@cache
def queries_of(package: str) -> Mapping[str, bytes]:
    """The statements of a package by their unique names, as the bytes that psycopg takes without copying."""
    queries: dict[str, bytes] = {}
    for file in sorted((files(package) / "sql").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            found = load_queries(file)
            if twice := queries.keys() & found.keys():
                raise ValueError(f"{file.name}: {', '.join(sorted(twice))} is also in another file")
            queries.update(found)
    return MappingProxyType(queries)


def query_text(package: str, name: str) -> LiteralString:
    """One statement as text: to be composed, or for a driver that does not take bytes."""
    return queries_of(package)[name].decode()


def load_queries(file: Traversable) -> dict[str, bytes]:
    """The statements of one file."""
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
