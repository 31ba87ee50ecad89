"""A job in words for people; `shardd job show` and the dashboard say the same."""

from __future__ import annotations

from typing import Final

from shardd.queue.records import JobRow, WholeJob
from shardd.states import JobState
from shardd.words import Facts, count, moment_text

_SHOWN_OF_MEDIA: Final = 64
"""Characters that are shown of a data: URI, which contains a whole file."""


def tries_of(job: JobRow) -> int:
    """Attempts that failed, and the one that is under way or was accepted, even if a failure was reported later."""
    return job.failures + (
        job.state in (JobState.SENT, JobState.SENDING) or (job.failures == 0 and job.message_id is not None)
    )


def handling_facts(job: WholeJob) -> Facts:
    """How it is to be handled, and how often it was tried."""
    tries = f"{tries_of(job)} of {job.max_attempts}, {job.failures} failed; claimed {count(job.claims, 'time')}"
    return [
        ("order group", job.order_group),
        ("reference", job.reference),
        ("tries", tries),
        ("on doubt", job.on_doubt),
        ("on unreadable", job.on_unreadable),
        ("priority", str(job.priority) if job.priority else ""),
    ]


def origin_facts(job: WholeJob) -> Facts:
    """Who inserted it, and by what it is known elsewhere."""
    return [
        ("no keys of", count(job.members_without_keys, "member") if job.members_without_keys else ""),
        ("message id", job.message_id),
        ("dedupe key", job.dedupe_key),
        ("producer", job.producer),
    ]


def revocation_words(job: WholeJob) -> str:
    """What became of the deletion of its message; empty: there was none."""
    if job.revoked_by is None:
        return ""
    if job.revoked_at is not None:
        return f"by job {job.revoked_by}, sent {moment_text(job.revoked_at)}"
    return f"not yet: job {job.revoked_by} is {job.revocation_state or 'deleted'}"


def media_words(media: str | None) -> str:
    """Where the file of a message is."""
    if media is None or not media.startswith("data:") or len(media) <= _SHOWN_OF_MEDIA:
        return media or ""
    return f"{media[:_SHOWN_OF_MEDIA]}… ({count(len(media), 'character')})"
