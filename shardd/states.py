"""Every state of a job, a device and a shard, and every transition between them, as data.

A transition that is not in a table is refused: a look-up raises `KeyError`, statements are filled in from the tables
(`shardd.queue.columns`), and triggers refuse what other statements try. `tests/unit/test_states.py` checks the words that SQL
files spell themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar


class JobState(StrEnum):
    """Where a job is. The first three are live rows, the others are finished."""

    SCHEDULED = "scheduled"  # waits for its time: run_at, or the end of a backoff
    QUEUED = "queued"  # waits for its device
    SENDING = "sending"  # claimed: with a worker
    SENT = "sent"
    FAILED = "failed"
    CANCELLED = "cancelled"
    IN_DOUBT = "in_doubt"  # handed over, outcome unknown
    EXPIRED = "expired"  # not sent before its expires_at
    OPTED_OUT = "opted_out"  # its recipient opted out


class Verdict(StrEnum):
    """The result of one claim of a job, as workers report it and journals record it."""

    SENT = "sent"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    UNAVAILABLE = "unavailable"  # the device could not send; no attempt is used up
    RETURNED = "returned"  # never started: drained, or its worker died before the hand-over; no attempt is used up
    IN_DOUBT = "in_doubt"
    EXPIRED = "expired"  # too late; nothing was sent
    OPTED_OUT = "opted_out"  # the recipient opted out; nothing was sent


MAY_HAVE_LEFT: Final = frozenset({Verdict.SENT, Verdict.IN_DOUBT})
"""Verdicts that count towards limits: the message left, or may have."""

ALONE_FROM: Final = 2
"""A job is prepared alone once this many workers died, or were replaced for their memory, while they prepared it."""

FINISHED: Final = frozenset(JobState) - {JobState.SCHEDULED, JobState.QUEUED, JobState.SENDING}

State = TypeVar("State", bound=StrEnum)


def _table(transitions: Mapping[State, Mapping[str, State]]) -> Mapping[State, Mapping[str, State]]:
    """A read-only copy."""
    return MappingProxyType({state: MappingProxyType(dict(events)) for state, events in transitions.items()})


# from state → event → next state. `transient_last` is a transient verdict that used up the last attempt;
# `in_doubt_retry` an in-doubt verdict of a job whose producer asked for `on_doubt: retry`; `restricted` an unavailable
# verdict that concerns this message only, because its recipient is a new contact; `returned_last` a job that was returned
# because its worker died, once too often; `retry_later` a retry before the job's `run_at`, or behind its order group; `confirmed`
# a platform's report that the message of an earlier claim, whose answer was lost, was sent; `decide_sent` and `decide_not_sent`
# what a person found out about a job in doubt.
JOB_TRANSITIONS: Final = _table(
    {
        JobState.SCHEDULED: {
            "due": JobState.QUEUED,
            "cancel": JobState.CANCELLED,
            "expire": JobState.EXPIRED,
            "opt_out": JobState.OPTED_OUT,
            "confirmed": JobState.SENT,
        },
        JobState.QUEUED: {
            "claim": JobState.SENDING,
            "cancel": JobState.CANCELLED,
            "expire": JobState.EXPIRED,
            "confirmed": JobState.SENT,
        },
        JobState.SENDING: {
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
        },
        # Reports come in any order: a message that was delivered did not fail.
        JobState.FAILED: {"retry": JobState.QUEUED, "retry_later": JobState.SCHEDULED, "delivered": JobState.SENT},
        JobState.CANCELLED: {"retry": JobState.QUEUED, "retry_later": JobState.SCHEDULED},
        JobState.EXPIRED: {},
        JobState.OPTED_OUT: {},
        JobState.IN_DOUBT: {
            "retry": JobState.QUEUED,
            "retry_later": JobState.SCHEDULED,
            # A journal that was out of reach came back, or the platform reports it: what it proves ends the doubt.
            Verdict.SENT: JobState.SENT,
            Verdict.PERMANENT: JobState.FAILED,
            "transient_last": JobState.FAILED,
            "returned_last": JobState.FAILED,
            Verdict.TRANSIENT: JobState.QUEUED,
            Verdict.UNAVAILABLE: JobState.QUEUED,
            "restricted": JobState.QUEUED,
            Verdict.RETURNED: JobState.QUEUED,
            Verdict.EXPIRED: JobState.EXPIRED,
            Verdict.OPTED_OUT: JobState.OPTED_OUT,
            "decide_sent": JobState.SENT,
            "decide_not_sent": JobState.FAILED,
        },
        # A platform may accept a message and report later that it could not deliver it.
        JobState.SENT: {"refused": JobState.FAILED},
    }
)


class DeviceState(StrEnum):
    """The state of a device; only `ready` and `restricted` devices send."""

    READY = "ready"
    UNPAIRED = "unpaired"  # no session is stored
    LOGGED_OUT = "logged_out"  # the phone removed this session, or a platform refuses the credentials
    REPLACED = "replaced"  # another client took over the session
    BANNED = "banned"  # for a time
    RESTRICTED = "restricted"  # may not write to new contacts, for a time
    CLIENT_OUTDATED = "client_outdated"  # WhatsApp refuses the version of the library


PAUSED: Final = "paused"
"""Shown as the state of a paused device, whatever its own state is."""

# What a person does about a device in this state; shown by `shardd device show`.
DEVICE_REMEDY: Final = MappingProxyType(
    {
        DeviceState.READY: "nothing to do",
        DeviceState.UNPAIRED: "pair it: shardd device pair {id}",
        DeviceState.LOGGED_OUT: "the phone removed this session; pair it again: shardd device pair {id}",
        DeviceState.REPLACED: "another client uses this session; stop that client, then: shardd device take-over {id}",
        DeviceState.BANNED: "wait: WhatsApp lifts this ban by itself; write less, and only to people who want it",
        DeviceState.RESTRICTED: "wait: only messages to new contacts are held back; known chats are still served",
        DeviceState.CLIENT_OUTDATED: "upgrade the library, once for all devices: shardd guide library",
    }
)

CAN_SEND: Final = frozenset({DeviceState.READY, DeviceState.RESTRICTED})

_BY_AN_OPERATOR: Final = {"pair": DeviceState.READY, "unlink": DeviceState.UNPAIRED}
_REPORTED: Final[Mapping[str, DeviceState]] = {state: state for state in DeviceState if state is not DeviceState.READY}

# from state → event → next state. A report of a worker is named after the state that it reports. Reports about a device that has
# no session any more concern the previous one and change nothing. `new_settings` replaces credentials that a platform refused;
# `restore_…` undoes an `unlink` that failed.
DEVICE_TRANSITIONS: Final = _table(
    {
        DeviceState.READY: {**_REPORTED, **_BY_AN_OPERATOR},
        DeviceState.UNPAIRED: {**_BY_AN_OPERATOR, **{f"restore_{state}": state for state in DeviceState}},
        DeviceState.LOGGED_OUT: {**_BY_AN_OPERATOR, "new_settings": DeviceState.READY},
        DeviceState.REPLACED: {**_REPORTED, **_BY_AN_OPERATOR, "take_over": DeviceState.READY},
        DeviceState.BANNED: {**_REPORTED, **_BY_AN_OPERATOR, "heal": DeviceState.READY},
        DeviceState.RESTRICTED: {**_REPORTED, **_BY_AN_OPERATOR, "heal": DeviceState.READY},
        DeviceState.CLIENT_OUTDATED: {**_REPORTED, **_BY_AN_OPERATOR, "heal": DeviceState.READY},
    }
)


class LibraryState(StrEnum):
    """Whether WhatsApp accepts the installed version of the library, as far as one node knows."""

    ACCEPTED = "accepted"
    DOUBTED = "doubted"  # refused for some devices, which is no proof yet; the others go on
    REFUSED = "refused"  # no device logs in, but for probes


LIBRARY_PROOF: Final = 3
"""Devices that must have been refused for the version, since the last accepted login, until it counts as refused for all."""

# `refused`: a login of a device, for the version of the library; `proven`: of so many that it is the version, or another node has
# found that out; `accepted`: a login of any device.
LIBRARY_TRANSITIONS: Final = _table(
    {
        LibraryState.ACCEPTED: {"refused": LibraryState.DOUBTED, "proven": LibraryState.REFUSED},
        LibraryState.DOUBTED: {"proven": LibraryState.REFUSED, "accepted": LibraryState.ACCEPTED},
        LibraryState.REFUSED: {"accepted": LibraryState.ACCEPTED},
    }
)


class NodeState(StrEnum):
    """What a node does. All but the last two run, and only the first takes shards."""

    SERVING = "serving"
    CORDONED = "cordoned"  # an operator wants it to hold no shards
    AWAY = "away"  # it cannot hand jobs over, because its state folder is gone: its shards go to other nodes
    LEAVING = "leaving"  # it stops, and gives its shards back one by one
    SILENT = "silent"  # not seen for a lease's time: dead, or cut off
    STOPPED = "stopped"


class ShardState(StrEnum):
    """Where a shard's worker process is."""

    WAITING = "waiting"  # no lease, or not yet due to start
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    DRAINED = "drained"  # by an operator; stays so until restarted
    BACKOFF = "backoff"  # died; starts again soon
    BROKEN = "broken"  # died too often; probed every few minutes
    STOPPED = "stopped"


SHARD_TRANSITIONS: Final = _table(
    {
        ShardState.WAITING: {"spawn": ShardState.STARTING, "stop": ShardState.STOPPED},
        ShardState.STARTING: {
            "ready": ShardState.RUNNING,
            "died": ShardState.BACKOFF,
            "drain": ShardState.DRAINING,
            "fence": ShardState.WAITING,
        },
        ShardState.RUNNING: {
            "drain": ShardState.DRAINING,
            "died": ShardState.BACKOFF,
            "fence": ShardState.WAITING,
        },
        ShardState.DRAINING: {
            "drained": ShardState.DRAINED,
            "stop": ShardState.STOPPED,
            "respawn": ShardState.WAITING,
            "fence": ShardState.WAITING,
        },
        ShardState.DRAINED: {"spawn": ShardState.STARTING, "stop": ShardState.STOPPED, "fence": ShardState.WAITING},
        ShardState.BACKOFF: {
            "broke": ShardState.BROKEN,
            "spawn": ShardState.STARTING,
            "stop": ShardState.STOPPED,
            "drain": ShardState.DRAINED,
            "fence": ShardState.WAITING,
        },
        ShardState.BROKEN: {
            "spawn": ShardState.STARTING,
            "stop": ShardState.STOPPED,
            "drain": ShardState.DRAINED,
            "fence": ShardState.WAITING,
        },
        ShardState.STOPPED: {},
    }
)
