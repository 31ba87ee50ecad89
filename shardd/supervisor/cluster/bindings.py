"""Whether the bindings of producers hold whom they were made for.

A role that was renamed, or that became a superuser, is as free as one that was never bound, and no INSERT of its own would tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shardd.queue.producers import ProducerAdmin
from shardd.supervisor.problems import Problem, ProblemKind

LOOK_EVERY: Final = 20.0
"""Seconds between looks at the bound roles."""

_WHY: Final = {
    "missing": "there is no such role: was it renamed? Bind it under its new name, and free the old one (shardd producer remove)",
    "unheld": "no binding holds it, because it is a superuser, a member of the role that owns shardd's tables, or has BYPASSRLS",
    "stale": "it was given LOGIN, or lost it, since it was bound: bind it again (shardd producer add)",
}


class BindingCheck:
    """Looks at the bound roles, and reports those that nothing holds."""

    def __init__(self, producers: ProducerAdmin) -> None:
        self._producers = producers
        self._idle: list[tuple[str, str]] = []

    async def look(self) -> None:
        """Look now. Raises DatabaseError."""
        self._idle = await self._producers.idle()

    def problems(self) -> Iterable[Problem]:
        """One for each role."""
        for role, why in self._idle:
            yield Problem(ProblemKind.PRODUCER, f"producer {role} is bound, but {_WHY[why]}")
