"""Counts what platforms report for no device, to show why answers or opt-outs are missing.

The usual causes: another program's number at the same account, a device that has another key or number now, a new secret of the
paths. A signed message to an unknown number can still opt its sender out; what is posted to an unknown path can not.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from shardd.bounded import remember
from shardd.logs import get_logger

log = get_logger(__name__)

WARN_EVERY: Final = 600.0
"""Seconds between warnings about the same source."""
MOST: Final = 1000
"""Sources that are remembered."""


class UnattributedReports:
    """Since the start of this supervisor."""

    def __init__(self) -> None:
        self.count = 0
        self._last = ""
        self._warned: OrderedDict[str, float] = OrderedDict()
        """When, on the monotonic clock, by source."""

    def note(self, source: str) -> None:
        """A report came for no device. `source`: what it names, without a secret."""
        self.count += 1
        self._last = source
        now = time.monotonic()
        if now >= self._warned.get(source, -WARN_EVERY) + WARN_EVERY:
            remember(self._warned, source, now, MOST)
            log.warning("a platform reports for no device of this shardd", action="webhook", source=source)

    def notes(self) -> list[str]:
        """For the status."""
        if not self.count:
            return []
        reports = "1 report" if self.count == 1 else f"{self.count:,} reports"
        lost = "what people wrote there is not in the inbox; see shardd guide platforms"
        return [f"platforms posted {reports} for no device since the start, the last to {self._last}: {lost}"]
