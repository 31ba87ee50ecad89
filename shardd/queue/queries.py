"""The SQL statements of the queue, by name, read from the files in `shardd/queue/sql` (see `shardd.postgres.sql_files`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from shardd.postgres.sql_files import load_queries


@cache
def all_queries() -> dict[str, bytes]:
    """Statements of every file of the package; a name stands for one statement only."""
    queries: dict[str, bytes] = {}
    for file in sorted(files("shardd.queue").joinpath("sql").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            found = load_queries(file)
            if twice := queries.keys() & found.keys():
                raise ValueError(f"{file.name}: {', '.join(sorted(twice))} stands in another file too")
            queries.update(found)
    return queries
