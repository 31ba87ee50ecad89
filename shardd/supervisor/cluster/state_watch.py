"""Whether what is written to the state folder now would be found there after a crash.

A journal that nobody can find again protects nobody from a second message. So while the state folder is gone, or a journal's disk
takes nothing more, nothing is handed over, and `status` says why.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from shardd.logs import get_logger
from shardd.supervisor.cluster.state_lock import StateLock
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.services import Service
from shardd.supervisor.workers.shard import Shard

log = get_logger(__name__)

LOOK_EVERY: Final = 2.0
"""Seconds between looks at the state folder."""


class StateWatch(Service):
    """Looks at the folder, and gathers what the workers say of their journals."""

    def __init__(self, lock: StateLock, shards: Callable[[], Sequence[Shard]], changed: Callable[[], None]) -> None:
        """`changed`: told when things may be claimed again, or may not any more."""
        self._lock = lock
        self._shards = shards
        self._changed = changed
        self.trouble: str | None = None
        """Why nothing may be claimed on this node; None: nothing keeps it."""
        self._since = 0.0

    async def serve(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY)

    def look(self) -> None:
        """Look now."""
        flaw = self._lock.displaced()
        before, self.trouble = self.trouble, None if flaw is None else self._words(flaw)
        if before is None:
            self._since = time.monotonic()
        if before == self.trouble:
            return
        if self.trouble is not None:
            log.error("the state folder is not what it was", action="state", problem=self.trouble)
        else:
            log.info("the state folder is back", action="state", path=str(self._lock.state_dir))
        self._changed()

    def lasts_for(self) -> float:
        """Seconds for which nothing may be claimed, more than 0; 0: it may."""
        return 0.0 if self.trouble is None else max(0.001, time.monotonic() - self._since)

    def problems(self) -> Iterable[Problem]:
        """The folder, and journals that cannot be written; shards with the same reason share one."""
        if self.trouble is not None:
            yield Problem(ProblemKind.STATE_FOLDER, self.trouble)
        by_reason: dict[str, list[str]] = {}
        for shard in self._shards():
            if shard.journal_error is not None:
                by_reason.setdefault(shard.journal_error, []).append(str(shard.index))
        folder = self._lock.state_dir / "journal"
        for reason, shards in by_reason.items():
            whose = (
                f"the journal of shard {shards[0]}"
                if len(shards) == 1
                else f"the journals of shards {', '.join(shards)}"
            )
            yield Problem(
                ProblemKind.JOURNAL, f"{whose} in {folder}: {reason}; nothing of theirs is sent while that lasts"
            )

    def _words(self, flaw: str) -> str:
        return (
            f"state_dir {self._lock.state_dir}: {flaw} while shardd runs: nothing is claimed, and after lease.ttl its "
            f"shards go to other nodes; put it back, or stop shardd (systemctl stop, or kill {os.getpid()}) and start it again"
        )
