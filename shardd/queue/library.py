"""Which versions of the WhatsApp library WhatsApp refuses, in the database: the statements of `sql/library.sql`."""

from __future__ import annotations

from collections.abc import Sequence

from shardd.queue.database import Database
from shardd.queue.queries import Statements


class LibraryRefusals(Statements):
    """What a node does with them. Every method raises DatabaseError."""

    def __init__(self, database: Database, *, library: str, node_id: str, node: str) -> None:
        """`library`: the version that is installed; `node`: the name of the node."""
        super().__init__(database)
        self.library = library
        self._node_id = node_id
        self._node = node

    async def record(self, age: float) -> None:
        """The installed version is refused, for `age` seconds already."""
        params = {"library": self.library, "node_id": self._node_id, "node": self._node, "age": age}
        await self._database.execute("record_refusal", params)

    async def age(self) -> float | None:
        """For how many seconds the installed version has been refused; None: it is not."""
        age: float | None = await self._database.value("refusal_age", {"library": self.library})
        return age

    async def claim_probe(self, every: float) -> bool:
        """Whether this node is to make a probe now: some node does it, every `every` seconds."""
        return bool(await self._database.value("claim_probe", {"library": self.library, "every": every}))

    async def end(self) -> None:
        """A login with the installed version was accepted."""
        await self._database.execute("end_refusals", {"library": self.library, "node_id": self._node_id})

    async def free_devices(self, ids: Sequence[str]) -> list[str]:
        """Make these devices ready if they are client_outdated; returns those that were."""
        return await self._database.column("free_outdated_devices", {"ids": list(ids)})
