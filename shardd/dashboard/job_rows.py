"""The rows of a table of jobs; one that was not full when the time of its search was up goes on by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shardd.dashboard import fields
from shardd.queue.job_search import JobPage
from shardd.queue.job_words import tries_of

TURNS: Final = 40
"""Searches that follow each other by themselves; then a person is asked."""


def rows_of(page: JobPage, given: Mapping[str, Any], most: int, *, turn: int, listed: bool) -> dict[str, Any]:
    """What the templates of a table need of a page, and how it goes on. `listed`: there are links to other pages below them."""
    on = {**given, "before": page.older, "most": most - len(page.jobs), "turn": turn + 1, "listed": int(listed)}
    return {
        "jobs": page.jobs,
        "tries_of": tries_of,
        "searched": page.older if page.unfinished else None,
        "more": fields.link("/jobs/more", on) if page.unfinished else None,
        "by_itself": turn % TURNS != 0,
        "older": fields.link("/jobs", {**given, "before": page.older}) if page.older and not page.unfinished else None,
        "listed": listed,
    }
