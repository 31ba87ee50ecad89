"""Every state of a job, a device and a shard, and every transition between them, as data.

A transition that is not in a table is a defect, and asking for it raises `KeyError`. The SQL of the queue spells the
same words; `tests/unit/test_states.py` holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class JobState(StrEnum):
    """Where a job is. The first three are live rows, the others finished ones."""

    SCHEDULED = "scheduled"  # waits for its time: run_at, or the end of a backoff
    QUEUED = "queued"  # waits for its device
    SENDING = "sending"  # claimed: with a worker
    SENT = "sent"
    FAILED = "failed"
    CANCELLED = "cancelled"
    IN_DOUBT = "in_doubt"  # handed over, outcome unknown to everybody
    EXPIRED = "expired"  # its time was over before it was sent
    OPTED_OUT = "opted_out"  # its recipient wants no more messages


class Verdict(StrEnum):
    """What one claim of a job came to; the word in which a worker reports and a journal remembers."""

    SENT = "sent"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    UNAVAILABLE = "unavailable"  # the device could not send; no attempt is used up
    RETURNED = "returned"  # never started: drained, or its worker died before the hand-over; no attempt is used up
    IN_DOUBT = "in_doubt"
    EXPIRED = "expired"  # too late; nothing left
    OPTED_OUT = "opted_out"  # the recipient wants no such message; nothing left


MAY_HAVE_LEFT: Final = frozenset({Verdict.SENT, Verdict.IN_DOUBT})
"""What counts for limits: a message that left, or may have."""

ALONE_FROM: Final = 2
"""Workers that died, or were replaced for their memory, while they prepared a job, from which on it is prepared alone."""

FINISHED: Final = frozenset(
    {
        JobState.SENT,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.IN_DOUBT,
        JobState.EXPIRED,
        JobState.OPTED_OUT,
    }
)

# from state → event → next state. `transient_last` is a transient verdict that used up the last attempt;
# `in_doubt_retry` an in-doubt verdict of a job whose producer asked for `on_doubt: retry`; `restricted` an unavailable
# verdict that concerns this message only, because its recipient is a new contact; `returned_last` a job that was given back
# because its worker died, once too often; `retry_later` a retry before the job's `run_at`, or behind its order group.
JOB_TRANSITIONS: Final = MappingProxyType(
    {
        JobState.SCHEDULED: MappingProxyType(
            {
                "due": JobState.QUEUED,
                "cancel": JobState.CANCELLED,
                "expire": JobState.EXPIRED,
                "opt_out": JobState.OPTED_OUT,
            }
        ),
        JobState.QUEUED: MappingProxyType(
            {"claim": JobState.SENDING, "cancel": JobState.CANCELLED, "expire": JobState.EXPIRED}
        ),
        JobState.SENDING: MappingProxyType(
            {
                Verdict.SENT: JobState.SENT,
                Verdict.PERMANENT: JobState.FAILED,
                Verdict.TRANSIENT: JobState.SCHEDULED,
                "transient_last": JobState.FAILED,
                Verdict.UNAVAILABLE: JobState.QUEUED,
                "restricted": JobState.SCHEDULED,
                Verdict.RETURNED: JobState.QUEUED,
                "returned_last": JobState.FAILED,
                Verdict.IN_DOUBT: JobState.IN_DOUBT,
                "in_doubt_retry": JobState.SCHEDULED,
                Verdict.EXPIRED: JobState.EXPIRED,
                Verdict.OPTED_OUT: JobState.OPTED_OUT,
            }
        ),
        JobState.FAILED: MappingProxyType({"retry": JobState.QUEUED, "retry_later": JobState.SCHEDULED}),
        JobState.CANCELLED: MappingProxyType({"retry": JobState.QUEUED, "retry_later": JobState.SCHEDULED}),
        JobState.EXPIRED: MappingProxyType({}),
        JobState.OPTED_OUT: MappingProxyType({}),
        JobState.IN_DOUBT: MappingProxyType(
            {
                "retry": JobState.QUEUED,
                "retry_later": JobState.SCHEDULED,
                # a journal that was out of reach came back and knows the outcome after all
                Verdict.SENT: JobState.SENT,
                Verdict.PERMANENT: JobState.FAILED,
            }
        ),
        # A platform that took a message over may say later that it could not deliver it.
        JobState.SENT: MappingProxyType({"refused": JobState.FAILED}),
    }
)


class DeviceState(StrEnum):
    """What is known about a device; only `ready` and `restricted` devices send."""

    READY = "ready"
    UNPAIRED = "unpaired"  # no session is stored
    LOGGED_OUT = "logged_out"  # the phone removed us
    REPLACED = "replaced"  # another client took the session over
    BANNED = "banned"  # for a time
    RESTRICTED = "restricted"  # may not write to new contacts, for a time
    CLIENT_OUTDATED = "client_outdated"  # the library must be upgraded


# What a person does about a device in this state; shown by `shardd device show`.
DEVICE_REMEDY: Final = MappingProxyType(
    {
        DeviceState.READY: "nothing to do",
        DeviceState.UNPAIRED: "pair it: shardd device pair {id}",
        DeviceState.LOGGED_OUT: "the phone removed this session; pair it again: shardd device pair {id}",
        DeviceState.REPLACED: "another client uses this session; stop that client, then: shardd device take-over {id}",
        DeviceState.BANNED: "wait: WhatsApp lifts this ban by itself; write less, and only to people who want it",
        DeviceState.RESTRICTED: "wait: only messages to new contacts are held back; known chats are still served",
        DeviceState.CLIENT_OUTDATED: "upgrade shardd: WhatsApp refuses this version of the library",
    }
)

# States that a device leaves by itself when their time is over.
SELF_HEALING: Final = frozenset({DeviceState.BANNED, DeviceState.RESTRICTED})
CAN_SEND: Final = frozenset({DeviceState.READY, DeviceState.RESTRICTED})


class ShardState(StrEnum):
    """Where a shard's worker process is."""

    WAITING = "waiting"  # no lease, or its turn to start has not come
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    DRAINED = "drained"  # by an operator; stays so until restarted
    BACKOFF = "backoff"  # died; starts again soon
    BROKEN = "broken"  # died too often; probed every few minutes
    STOPPED = "stopped"


SHARD_TRANSITIONS: Final = MappingProxyType(
    {
        ShardState.WAITING: MappingProxyType({"spawn": ShardState.STARTING, "stop": ShardState.STOPPED}),
        ShardState.STARTING: MappingProxyType(
            {
                "ready": ShardState.RUNNING,
                "died": ShardState.BACKOFF,
                "drain": ShardState.DRAINING,
                "fence": ShardState.WAITING,
            }
        ),
        ShardState.RUNNING: MappingProxyType(
            {
                "drain": ShardState.DRAINING,
                "died": ShardState.BACKOFF,
                "fence": ShardState.WAITING,
            }
        ),
        ShardState.DRAINING: MappingProxyType(
            {
                "drained": ShardState.DRAINED,
                "stop": ShardState.STOPPED,
                "respawn": ShardState.WAITING,
                "fence": ShardState.WAITING,
            }
        ),
        ShardState.DRAINED: MappingProxyType(
            {"spawn": ShardState.STARTING, "stop": ShardState.STOPPED, "fence": ShardState.WAITING}
        ),
        ShardState.BACKOFF: MappingProxyType(
            {
                "broke": ShardState.BROKEN,
                "spawn": ShardState.STARTING,
                "stop": ShardState.STOPPED,
                "drain": ShardState.DRAINED,
                "fence": ShardState.WAITING,
            }
        ),
        ShardState.BROKEN: MappingProxyType(
            {
                "spawn": ShardState.STARTING,
                "stop": ShardState.STOPPED,
                "drain": ShardState.DRAINED,
                "fence": ShardState.WAITING,
            }
        ),
        ShardState.STOPPED: MappingProxyType({}),
    }
)
