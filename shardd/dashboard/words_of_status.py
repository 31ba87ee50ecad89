"""A node's status in the words of the page."""

from __future__ import annotations

from shardd.supervisor.status import Status


def head_word(status: Status) -> str:
    """`healthy`, `degraded`, or what it does instead of running."""
    if status.healthy:
        return "healthy"
    return "degraded" if status.state == "running" else status.state
