"""How long the steps of a job take on this node, as histograms of the metrics page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import Metric

_DATABASE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a round trip takes milliseconds; a statement ends after some seconds."""
_SEND: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds: an HTTP platform answers within one, a login to WhatsApp takes several, a large file a minute."""


class Latencies:
    """Observed by the router."""

    def __init__(self) -> None:
        # Without a registry: a process may have several, and none of them shows anything else.
        self.claim = Histogram(
            "shardd_claim_seconds", "Round trips to the database that claim jobs.", buckets=_DATABASE, registry=None
        )
        self.send = Histogram(
            "shardd_send_seconds",
            "From the hand-over of a job to its worker until the answer, of messages that were sent.",
            buckets=_SEND,
            registry=None,
        )
        self.settle = Histogram(
            "shardd_settle_seconds",
            "From the outcome of a job until the database has it.",
            buckets=_DATABASE,
            registry=None,
        )

    def collect(self) -> Iterator[Metric]:
        """For the metrics page."""
        for each in (self.claim, self.send, self.settle):
            yield from each.collect()
