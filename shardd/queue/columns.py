"""The columns of jobs and devices, once, and the statements of `sql/` that are filled in with them.

Where a statement lists all columns of a kind, it has a placeholder such as `${archived}`, and likewise for states that follow
from the tables of `shardd.states`. To add a column of jobs, add it to the tables and views with a migration, and to `GIVEN` or
`RETRIED` here, and to `JobRow`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from shardd.postgres.sql_files import queries_of
from shardd.queue.records import Device, JobRow, WholeJob
from shardd.queue.settle import Claim
from shardd.states import CAN_SEND, DEVICE_TRANSITIONS, FINISHED, JOB_TRANSITIONS, DeviceState, JobState

GIVEN: Final = (
    *("device_id", "device_group", "recipient", "kind"),
    *("body", "variables", "media", "file_name", "mime_type", "details", "reply_to"),
    "revokes",
    *("class", "campaign", "priority", "run_at", "expires_at", "max_attempts", "on_doubt"),
    *("on_unreadable", "dedupe_key", "order_group"),
    *("reference", "metadata"),
)
"""Columns of a job that producers may insert."""

RETRIED: Final = (
    *(name for name in GIVEN if name != "device_id"),
    *(
        "producer",
        "created_at",
        "address",
        "number",
        "rendered",
        "confirms",
        "attempt",
        "resend_of",
        "resends",
        "quote",
    ),
)
"""Columns that a job keeps when it is brought back from the archive, besides its id and, outside of a group, its device."""

RESENT: Final = (
    *(name for name in GIVEN if name not in ("device_id", "device_group", "dedupe_key", "order_group")),
    *("producer", "address", "number", "rendered", "quote"),
)
"""Columns that a job takes from the one whose message it repeats, because the recipient's phone could not decrypt that."""

ARCHIVED: Final = ("device_id", *RETRIED, "token")
"""Columns that move from the queue to the archive as they are, besides the id."""


def _fields(kind: type[Any], *but: str) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if field.name not in but)


SHOWN: Final = _fields(JobRow, "transport", "waits_for")
"""Columns of `shardd.outcomes` that `shardd job` shows as they are; `job_class` is the column `class`."""

CONTENT: Final = _fields(WholeJob, *_fields(JobRow), "claims", "node", "shard", "revocation_state", "revoked_at")
"""Columns of the tables that `shardd job show` shows besides; its other fields are of the last claim and of the revocation."""

CLAIM: Final = _fields(Claim)
"""The fields of a claim: columns of the queue, but for the epoch, which is `claimed_epoch`."""

VISITS: Final = ("online_at", "presence_at", "visit_failed_at", "visit_note")
"""Columns of `shardd.device_visits`."""

DEVICE: Final = _fields(Device, "day", "sent", "hour", "hour_sent", "last_at", "days", *VISITS, "fault")
"""Columns of `shardd.devices` that are read; the other fields of a device come from `shardd.device_days` and `device_visits`."""


def quoted(words: Iterable[str]) -> str:
    """As a list of SQL; the words are our own, and have no quotes in them."""
    return ", ".join(f"'{word}'" for word in words)


def _from(event: str, table: Mapping[Any, Mapping[str, str]]) -> str:
    """The states that an event leads out of."""
    return quoted(state for state, events in table.items() if event in events)


def _as_json_text(name: str) -> str:
    return f"d.{name}::text" if name in ("settings", "classes") else f"d.{name}"


_LISTS: Final = {
    "given": ", ".join(GIVEN),
    "given_values": ", ".join(f"%({name})s" for name in GIVEN),
    "retried": ", ".join(RETRIED),
    "archived": ", ".join(ARCHIVED),
    "resent": ", ".join(RESENT),
    "resent_old": ", ".join(f"old.{name}" for name in RESENT),
    "shown": ", ".join(f"o.{name}" if name != "job_class" else "o.class AS job_class" for name in SHOWN),
    "content": ", ".join(CONTENT),
    "claim": ", ".join(f"j.{name}" if name != "epoch" else "j.claimed_epoch AS epoch" for name in CLAIM),
    "device": ", ".join([*map(_as_json_text, DEVICE), *(f"v.{name}" for name in VISITS)]),
    "can_send": quoted(sorted(CAN_SEND)),
    "live": quoted(sorted(set(JobState) - FINISHED)),
    "retryable": _from("retry", JOB_TRANSITIONS),
    "decidable": _from("decide_sent", JOB_TRANSITIONS),
    "healing": _from("heal", DEVICE_TRANSITIONS),
    "taken_over": _from("take_over", DEVICE_TRANSITIONS),
    "restorable": _from(f"restore_{DeviceState.READY}", DEVICE_TRANSITIONS),
    "wants_settings": _from("new_settings", DEVICE_TRANSITIONS),
    "reported": ", ".join(
        f"('{before}', '{after}')"
        for before, events in DEVICE_TRANSITIONS.items()
        for after in DeviceState
        if after in events
    ),
    "device_states": ", ".join(
        f"('{state}', '{{{','.join(sorted(set(events.values()) - {state}))}}}')"
        for state, events in DEVICE_TRANSITIONS.items()
    ),
}


_QUERIES: Final = queries_of("shardd.queue")
FRAGMENTS: Final = (
    "job_filter",
    "id_window",
    "settled_by",
    "created_by",
    "live_jobs",
    "waits_filter",
    "found_live",
    "found_finished",
    "waits_for",
    "shown_campaign",
    "device_filter",
)
"""Parts that several statements have in common; a later one may contain an earlier one."""


def _fragments() -> dict[str, str]:
    filled: dict[str, str] = {}
    for name in FRAGMENTS:
        filled[name] = _replace(_QUERIES[name].decode(), {**_LISTS, **filled})
    return filled


def _replace(text: str, lists: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: lists[match[1]], text)


_FILLED: Final = _fragments()


def fill_in(text: str, more: Mapping[str, str] | None = None) -> str:
    """Replace the placeholders of a statement."""
    return _replace(text, {**_LISTS, **_FILLED, **(more or {})})


QUERIES: Final[Mapping[str, bytes]] = MappingProxyType(
    {name: fill_in(text.decode()).encode() for name, text in _QUERIES.items()}
)
"""The statements of `sql/`, by name."""


@lru_cache(maxsize=200)
def insert_of(columns: tuple[str, ...]) -> bytes:
    """The INSERT of a job that names only these columns of `GIVEN`: the others have their defaults."""
    lists = {"given": ", ".join(columns), "given_values": ", ".join(f"%({name})s" for name in columns)}
    return fill_in(_QUERIES["insert_given"].decode(), lists).encode()
