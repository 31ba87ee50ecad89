"""Whether the database is what it was: what a state folder remembers of its renewals, compared with what the database knows.

A database that was restored by other means than `shardd db restore` does not know what was sent since, and a state folder that
came back from a snapshot does not know what its journals contained. Either is found by the beats (`shardd.queue.beats`).

A database begins a new life when it is made, and when a person has said what may have been done that it does not know (`shardd
db restore`, `shardd db restored`). Before that answer it is in doubt, for all nodes: none of them claims anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shardd.postgres.servers import Identity
from shardd.queue.beats import BeatMemory, WentBack
from shardd.queue.database import Database
from shardd.queue.leases import LastBeat
from shardd.queue.queries import first


class Past(StrEnum):
    """What a state folder is to a database."""

    SAME = "same"
    """The folder's last supervisor was the node's last one, or another one took over from it."""
    NEW = "new"
    """Nothing is known to both."""
    FOLDER_OLDER = "folder_older"
    DATABASE_OLDER = "database_older"


@dataclass(frozen=True, slots=True)
class Life:
    """The present life of a database."""

    began: float
    doubt: str | None
    """Why it seems to be older than a state folder."""
    now: float


class Lives:
    """The statements. Raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last(self) -> Life:
        """The present life."""
        return first(await self._database.rows(Life, "last_life")) or Life(0.0, None, 0.0)

    async def last_beat(self, node: str) -> LastBeat | None:
        """What is known of a node; None: it is not registered."""
        return first(await self._database.rows(LastBeat, "last_beat", {"id": node}))

    @property
    def server(self) -> Identity | None:
        """Which server it is; None: unknown."""
        return self._database.server

    async def doubt(self, why: str) -> None:
        """Let no node claim anything, until a person has answered."""
        await self._database.execute("doubt_life", {"doubt": why})

    async def begin(self, how: str) -> None:
        """A person has answered."""
        await self._database.execute("begin_life", {"how": how})


def compare(memory: BeatMemory, known: LastBeat | None, life: Life) -> Past:
    """What is older: the memory, or what the database knows."""
    # What other supervisors did as this node since, they did on copies of the folder, and not as this incarnation.
    if known is not None and not set(memory.beats_known()).isdisjoint((known.beat, *known.earlier_beats)):
        return Past.SAME
    if memory.beats == 0 or life.began > memory.life:
        return Past.NEW if known is None else Past.FOLDER_OLDER
    if known is None or known.beats < memory.beats:
        return Past.DATABASE_OLDER
    return Past.FOLDER_OLDER


def what_is_lost(memory: BeatMemory, known: LastBeat | None, server: Identity | None) -> WentBack:
    """How much older the database on this server is."""
    before = memory.server
    timeline_changed = before is not None and server is not None and server.follows(before)
    if known is None:
        return WentBack(memory.beats, None, timeline_changed)
    seconds = None if known.at is None else max(0.0, memory.at - known.at)
    return WentBack(memory.beats - known.beats, seconds, timeline_changed)
