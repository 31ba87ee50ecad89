"""The kinds of events, in `shardd.events` and in the `kinds` of a webhook.

A kind is `job.` and the state in which the job ended, or what became known later. The triggers of the outbox write them
(`shardd/queue/migrations`); a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    JOB_SENT = "job.sent"
    JOB_FAILED = "job.failed"
    JOB_IN_DOUBT = "job.in_doubt"
    JOB_EXPIRED = "job.expired"
    JOB_OPTED_OUT = "job.opted_out"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"  # it had ended and is in the queue again
    JOB_DELIVERED = "job.delivered"
    JOB_READ = "job.read"
    JOB_UNREADABLE = "job.unreadable"  # a device of the recipient could not decrypt it
    MESSAGE_RECEIVED = "message.received"  # somebody wrote to a device
    MESSAGE_MEDIA = "message.media"  # the file of such a message was downloaded, or could not be
    OPT_OUT_TAKEN_BACK = "opt_out.taken_back"  # a person asked for messages again
    DEVICE_STATE = "device.state"  # a device was added, paused, resumed or removed, or is in another state
    LIBRARY_STATE = "library.state"  # WhatsApp refuses a version of the library, or accepts one again


def names_a_kind(pattern: str) -> bool:
    """Whether a pattern such as `job.sent`, `job.*` or `*` matches any kind."""
    return any(fits(pattern, kind) for kind in EventKind)


def fits(pattern: str, kind: str) -> bool:
    """Whether a pattern matches this kind. A regular expression with many `*` would take longer than anybody lives."""
    first, *others = pattern.split("*")
    if not others:
        return kind == pattern
    *middle, last = others
    at, end = len(first), len(kind) - len(last)
    if at > end or not (kind.startswith(first) and kind.endswith(last)):
        return False
    for part in middle:
        found = kind.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
