"""The rows of a table of jobs; one that was not full when the time of its search was up goes on by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shardd.dashboard import fields
from shardd.queue.job_search import JobPage
from shardd.queue.job_words import tries_of
from shardd.queue.records import JobRow

TURNS: Final = 40
"""Searches that follow each other by themselves; then a person is asked."""
_OR_RETRY: Final = ": shardd job resolve or retry"
_RESOLVE: Final = ": shardd job resolve"


def what_it_waits_for(job: JobRow) -> str:
    """In words, without the commands for which the pages have buttons; empty: nothing."""
    words = job.waits_for or ""
    if is_retryable(job):
        return words.replace(_OR_RETRY, " who decides whether it was sent, or retries it")
    return words.replace(_RESOLVE, " who decides whether it was sent")


def is_retryable(job: JobRow) -> bool:
    """Whether nothing keeps a job in doubt from being retried."""
    return (job.waits_for or "").endswith(_OR_RETRY)


def rows_of(page: JobPage, given: Mapping[str, Any], most: int, *, turn: int, listed: bool) -> dict[str, Any]:
    """What the templates of a table need of a page, and how it goes on. `listed`: there are links to other pages below them."""
    on = {**given, "before": page.older, "most": most - len(page.jobs), "turn": turn + 1, "listed": int(listed)}
    return {
        "jobs": page.jobs,
        "tries_of": tries_of,
        "what_it_waits_for": what_it_waits_for,
        "searched": page.older if page.unfinished else None,
        "more": fields.link("/jobs/more", on) if page.unfinished else None,
        "by_itself": turn % TURNS != 0,
        "older": fields.link("/jobs", {**given, "before": page.older}) if page.older and not page.unfinished else None,
        "listed": listed,
    }
