"""A pass through all live jobs in pages, for what no index answers: whose claims there are, and how many jobs.

A statement that reads ten million jobs takes longer than a statement may. A page is a range of ids with at most `PAGE` jobs,
read by a statement of its own; no connection is held between two pages.

The pages of a pass are not one moment. That is harmless, because an id never changes: a job that is there during the whole pass
is in exactly one page, whatever becomes of it meanwhile. One that comes behind the pass (inserted, or brought back under its old
id), or that is claimed after its page was read, is found by the next pass, like one that comes after a single statement. One that
was found and is settled meanwhile changes nothing: every settlement names the claim by id, epoch, attempt and token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic

from shardd.queue.queries import Params, Queries, Row

PAGE: Final = 50_000
"""Jobs of a page: some tenths of a second on a busy machine."""
FIRST, LAST = 0, 2**63 - 1


class JobPass(Generic[Row]):
    """A statement of the range of ids `after` … `upto`, and how far the pass has come.

    A page is read again until it is done, so that a pass goes on where an error stopped it.
    """

    size = PAGE

    def __init__(self, database: Queries, name: str, make: Callable[..., Row], params: Params) -> None:
        """`name`, `make`, `params`: as for `Queries.rows`."""
        self._database = database
        self._name = name
        self._make = make
        self._params = params
        self._after = self._upto = FIRST
        self._found: list[Row] = []

    async def page(self) -> list[Row] | None:
        """What the present page has; None: the pass is over, and another begins. Raises DatabaseError."""
        if self._after == LAST:
            self._after = FIRST
            return None
        upto: int | None = await self._database.value("page_end", {"after": self._after, "most": self.size})
        self._upto = LAST if upto is None else upto
        params = {**self._params, "after": self._after, "upto": self._upto}
        return await self._database.rows(self._make, self._name, params)

    def advance(self) -> None:
        """The present page is done."""
        self._after = self._upto

    async def rest(self) -> list[Row]:
        """What all pages have, once the pass is over. Raises DatabaseError."""
        while (rows := await self.page()) is not None:
            self._found += rows
            self.advance()
        found, self._found = self._found, []
        return found
