"""Before a start claims anything: whether the database and the state folder are what they were when the last supervisor ended.

A folder that is older than the database knows: its journals prove nothing about earlier runs. A database that is older than the
folder knows: what was sent since would be sent again, so the start waits until a person has said what may have been sent. A small
loss of a fail-over needs nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from shardd.errors import DatabaseError
from shardd.logs import get_logger
from shardd.queue.beats import BeatMemory, WentBack
from shardd.queue.lives import Lives, Past, compare, what_is_lost
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

WAIT_STEP: Final = 1.0
"""Seconds between looks whether a person has answered."""
FOLDER_OLDER: Final = (
    "state_dir {folder} is older than what the database knows of this node: a snapshot or an old copy of it came back, or the "
    "machine lost power with worker.journal_fsync off. Its journals prove nothing: what earlier runs had in flight is in doubt"
)


def doubt_of(who: str, lost: WentBack) -> str:
    """Why the database is in doubt, in words; `who`: the node that found it."""
    return f"it is older than what {who} knows, {lost.how_much}"


def explain(doubt: str) -> str:
    """A database in doubt, as a problem, with the remedy."""
    return (
        f"the database was restored, or has lost commits in a fail-over: {doubt}. Nothing is claimed by any node, because what "
        "was sent since would be sent again. If it is the right database, say what may have been sent: shardd db restored "
        "--sent-since-backup=maybe (shardd guide backup)"
    )


async def agree(
    lives: Lives,
    memory: BeatMemory,
    *,
    node: str,
    who: str,
    forgotten_after: float,
    report: Callable[[Problem | None], None],
) -> Past:
    """Compare; waits while the database is in doubt. What a fail-over lost is in `memory.lost`. Raises DatabaseError.

    `node`: the folder's id, `who`: the node in words; `forgotten_after`: seconds after which the database forgets a silent node.
    """
    waiting = False
    while True:
        try:
            life, known = await lives.last(), await lives.last_beat(node)
            past = compare(memory, known, life)
            if known is None and life.now - memory.at > forgotten_after:
                past = Past.NEW
            lost = what_is_lost(memory, known, lives.server) if past is Past.DATABASE_OLDER else None
            doubt = life.doubt
            if lost is not None and not lost.is_small and doubt is None:
                doubt = doubt_of(who, lost)
                await lives.doubt(doubt)
            if doubt is None:
                report(None)
                memory.lost = lost
                if lost is not None and known is not None:
                    memory.known = known.beat
                return past
            if not waiting:
                log.error("the database is older than it was", action="start", doubt=doubt)
            waiting = True
            report(Problem(ProblemKind.DATABASE, explain(doubt)))
        except DatabaseError:
            if not waiting:
                raise
        await asyncio.sleep(WAIT_STEP)
