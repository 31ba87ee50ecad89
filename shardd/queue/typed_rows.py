"""What people ask of the database, as typed rows.

The connections of the pool keep generic plans, which suits the router's arrays. A person's question has filters, most of them
NULL: it is planned for the values at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from psycopg.rows import kwargs_row

from shardd.queue.database import Database, Params

Row = TypeVar("Row")


async def fetch_rows(database: Database, make: Callable[..., Row], name: str, params: Params) -> list[Row]:
    """Rows of a named query, each made by `make`, which is given the columns by their names. Raises DatabaseError."""
    async with (
        database.connection() as connection,
        connection.transaction(),
        connection.cursor(row_factory=kwargs_row(make)) as cursor,
    ):
        await connection.execute(database.queries["plan_for_values"])
        await cursor.execute(database.queries[name], params)
        return await cursor.fetchall()
