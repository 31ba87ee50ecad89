"""When the leases are renewed, and looked for: regularly, as soon as another node's expires, and when one is given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from shardd.supervisor.services import Service, Step
from shardd.tasks import WakeUp

SPACING: Final = 0.1
"""Seconds between looks, however many notifications ask for one: anybody can send them."""


class Renewal(Service):
    """Repeats the renewal."""

    def __init__(
        self, step: Step, renew: Callable[[], Awaitable[None]], *, every: float, due: Callable[[], float]
    ) -> None:
        """`every`: seconds between renewals; `due`: seconds until something may be free, as of the last renewal."""
        self._step = step
        self._renew = renew
        self._every = every
        self._due = due
        self._wake = WakeUp(SPACING)

    def wake(self) -> None:
        """A lease was given back, or a notification of that may have been missed."""
        self._wake.set()

    async def serve(self) -> None:
        """Wait, renew, repeat."""
        while True:
            pause = self._step.pause(self._every)
            # After a failure nothing is known, and the backoff counts.
            await self._wake.wait(pause if self._step.error is not None else max(0.0, min(pause, self._due())))
            with self._step:
                await self._renew()
