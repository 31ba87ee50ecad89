"""Writing many things of which the database may refuse some, with as few statements as it takes to leave those out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shardd.errors import RefusedDataError

Item = TypeVar("Item")


async def divide(
    items: Sequence[Item],
    write: Callable[[Sequence[Item]], Awaitable[None]],
    refuse: Callable[[Item, RefusedDataError], Awaitable[None]],
) -> None:
    """Write all items but those that are refused when they stand alone. Raises what `write` raises otherwise."""
    if not items:
        return
    try:
        await write(items)
    except RefusedDataError as error:
        if len(items) == 1:
            await refuse(items[0], error)
            return
        middle = len(items) // 2
        await divide(items[:middle], write, refuse)
        await divide(items[middle:], write, refuse)
