"""What a person at a terminal is told of a daemon whose log is silent when all is well."""

from __future__ import annotations

from collections.abc import Mapping

from shardd.cli.output import say
from shardd.supervisor.systemd import Notifier


class TerminalNotifier(Notifier):
    """Also says once on stderr that the start is over."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """As in `Notifier`."""
        super().__init__(environ)
        self._announced = False

    def ready(self, status: str) -> None:
        """As in `Notifier`."""
        super().ready(status)
        if not self._announced:
            self._announced = True
            say(f"shardd is running: {status}; ^C stops it", err=True)
