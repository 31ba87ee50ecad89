"""The router's round trip: settle the jobs that ended and claim those that can be sent, in one pipeline and one commit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from shardd.ipc import JobSpec
from shardd.queue.columns import CLAIM
from shardd.queue.records import ClaimedJob, ClaimRequest, Sends, WorkHint
from shardd.queue.settle import Claim, Finish, Release
from shardd.queue.values import array, arrays, picker
from shardd.states import JobState

Params = Mapping[str, Any]

OrderGroup = tuple[str, str]
"""(producer, name): an order group belongs to the bound role that began it, or to all unbound producers (empty)."""


CLAIM_KEY: Final = {
    "ids": "claim.id", "epochs": "claim.epoch", "attempts": "claim.attempt", "tokens": "claim.token",
}  # fmt: skip
"""What identifies the claims of decisions, as parameters of statements."""
_COUNT: Final = {"device_ids": "device_id", "days": "day", "sents": "sent"}


@dataclass(frozen=True, slots=True)
class Settlement:
    """Everything that one round trip writes."""

    finishes: list[Finish] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    counts: list[Sends] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.finishes or self.releases)


@dataclass(frozen=True, slots=True)
class Cycle:
    """The result of one round trip."""

    settled: set[int]
    """Ids of the jobs whose claims were current and are settled."""
    claimed: list[ClaimedJob]
    """In the order of each lane."""
    advanced: list[WorkHint] = field(default_factory=list)
    """Jobs that joined their lanes because the job before them in their order group was sent, but for those claimed at once.

    Also those of other nodes' devices, and those of device groups: their device is empty.
    """


async def run_cycle(
    connection: AsyncConnection[TupleRow],
    queries: Mapping[str, bytes],
    settlement: Settlement,
    requests: Sequence[ClaimRequest],
) -> Cycle:
    """Settle, then claim: one round trip and one commit. Raises psycopg.Error; then both may or may not have happened."""
    settled_ids = []
    advanced = claims = None
    began = time.time()
    async with connection.pipeline():
        # Explicit: psycopg drops the error of a pipeline's implicit commit.
        await connection.execute(queries["begin_cycle"], prepare=False)
        if settlement.finishes:
            settled_ids.append(await connection.execute(queries["finish_jobs"], _finish_arrays(settlement.finishes)))
        if settlement.releases:
            settled_ids.append(await connection.execute(queries["release_jobs"], _release_arrays(settlement.releases)))
        if devices := [count for count in settlement.counts if not count.campaign]:
            await connection.execute(
                queries["count_sends"], arrays(devices, **_COUNT, hours="hour", last_ats="last_at")
            )
        if campaigns := [count for count in settlement.counts if count.campaign]:
            await connection.execute(queries["count_campaign_sends"], arrays(campaigns, **_COUNT, campaigns="campaign"))
        if groups := _advancing(settlement.finishes):
            advanced = await connection.execute(queries["advance_order_groups"], group_arrays(groups))
        if requests:
            claims = await connection.execute(queries["claim_jobs"], _claim_arrays(requests))
        await connection.execute(queries["commit_cycle"], prepare=False)
    settled = {id_ for cursor in settled_ids for (id_,) in await cursor.fetchall()}
    claimed = [] if claims is None else await _claimed_jobs(claims, began)
    ids = {job.claim.id for job in claimed}
    hints = [] if advanced is None else await _advanced(advanced, ids)
    return Cycle(settled, claimed, hints)


def group_arrays(groups: Sequence[OrderGroup]) -> dict[str, list[str]]:
    """Order groups as parameters of statements."""
    producers, names = zip(*groups, strict=True) if groups else ((), ())
    return {"producers": list(producers), "groups": list(names)}


def _advancing(finishes: list[Finish]) -> list[OrderGroup]:
    """The order groups whose next job may join its lane."""
    sent = [f.claim for f in finishes if f.state is JobState.SENT]
    return [(claim.producer, claim.order_group) for claim in sent if claim.order_group is not None]


def _finish_arrays(finishes: list[Finish]) -> Params:
    return arrays(
        finishes,
        **CLAIM_KEY,
        states="state",
        failures="failures",
        message_ids="message_id",
        errors="error",
        error_classes="error_class",
        members_without_keys="members_without_keys",
    )


def _release_arrays(releases: list[Release]) -> Params:
    now = time.time()
    fields = {
        "failures": "failures",
        "worker_deaths": "worker_deaths",
        "errors": "error",
        "error_classes": "error_class",
    }
    # As seconds from now: the database's clock decides when they are over.
    delays = [None if r.due_at is None else max(0.0, r.due_at - now) for r in releases]
    return {**arrays(releases, **CLAIM_KEY, **fields), "delays": delays}


def _claim_arrays(requests: Sequence[ClaimRequest]) -> Params:
    fields = {"device_ids": "device_id", "lanes": "lane", "epochs": "epoch", "rooms": "room", "peeks": "peek"}
    ords, ids = zip(*(request.low for request in requests), strict=True)
    return {**arrays(requests, **fields), "low_ords": array(list(ords)), "low_ids": array(list(ids))}


_SPEC: Final = tuple(
    name if name != "expires_at" else "expires_in" for name in JobSpec.__struct_fields__[5:] if name != "heard"
)
"""The columns of claim_jobs that follow claim and device in JobSpec, in its order; `heard` is of the worker, not of the row."""
_MOST: Final = {
    "recipient": 100, "kind": 100, "body": 65_536, "media": 1_048_576, "file_name": 255, "mime_type": 255, "details": 8192,
    "quote": 8192,
}  # fmt: skip
"""Characters, as the table's trigger allows them; an earlier version may have allowed more."""
_BOUNDED: Final = tuple((name, _SPEC.index(name), most) for name, most in _MOST.items())


async def _claimed_jobs(cursor: AsyncCursor[TupleRow], began: float) -> list[ClaimedJob]:
    """In the order of the lanes. `began`: when they were requested, so that expiry is early rather than late."""
    claim_of, spec_of, flags_of = picker(cursor, CLAIM), picker(cursor, _SPEC), picker(cursor, ("opted_out", "next"))
    claimed = []
    for row in await cursor.fetchall():
        claim, spec, (opted_out, following) = Claim(*claim_of(row)), spec_of(row), flags_of(row)
        fault = next(
            (f"{name} is too long" for name, at, most in _BOUNDED if spec[at] is not None and len(spec[at]) > most),
            None,
        )
        *texts_, expires_in, heeds_opt_outs, deaths = spec
        expires_at = None if expires_in is None else began + expires_in
        values: tuple[Any, ...] = (*claim.key, claim.device_id, *texts_, expires_at, heeds_opt_outs, deaths)
        position = None if following is None else (following[0], following[1])
        claimed.append(ClaimedJob(JobSpec(*values), claim, opted_out, position, fault))
    claimed.sort(key=lambda job: (job.claim.ord, job.claim.id))
    return claimed


async def _advanced(cursor: AsyncCursor[TupleRow], claimed: set[int]) -> list[WorkHint]:
    hint_of = picker(cursor, ("device_id", "lane", "ord", "id", "scheduled"))
    return [
        (device or "", lane, (ord_, id_))
        for device, lane, ord_, id_, scheduled in map(hint_of, await cursor.fetchall())
        if not scheduled and id_ not in claimed
    ]
