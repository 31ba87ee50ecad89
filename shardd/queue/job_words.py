"""A job in words for people; `shardd job show` and the dashboard say the same."""

from __future__ import annotations

from typing import Final

from shardd.queue.records import JobRow
from shardd.states import JobState
from shardd.words import count

_SHOWN_OF_MEDIA: Final = 64
"""Characters that are shown of a data: URI, which contains a whole file."""


def tries_of(job: JobRow) -> int:
    """Attempts that failed, and the one that is under way or was accepted, even if a failure was reported later."""
    return job.failures + (
        job.state in (JobState.SENT, JobState.SENDING) or (job.failures == 0 and job.message_id is not None)
    )


def media_words(media: str | None) -> str:
    """Where the file of a message is."""
    if media is None or not media.startswith("data:") or len(media) <= _SHOWN_OF_MEDIA:
        return media or ""
    return f"{media[:_SHOWN_OF_MEDIA]}… ({count(len(media), 'character')})"
