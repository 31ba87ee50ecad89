"""Jobs in the database, for the daemon: the statements of `sql/jobs.sql`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from shardd.errors import ErrorClass
from shardd.ipc import Receipt
from shardd.persons import recipient_at
from shardd.queue.cycle import CLAIM_KEY, Cycle, OrderGroup, Settlement, group_arrays, run_cycle
from shardd.queue.job_pass import JobPass
from shardd.queue.queries import Record, Statements
from shardd.queue.records import ClaimRequest, WorkHint
from shardd.queue.settle import Claim, Finish, Release
from shardd.queue.values import arrays
from shardd.states import JOB_TRANSITIONS, JobState, Verdict

BEHIND_EVERY_LANE: Final = "~"
"""Sorts behind every lane: a lane begins with a letter, a digit or a slash."""


RESEND_DELAY: Final = 5.0
"""Seconds between a retry receipt and the decision: one that another device of the recipient got the message may follow it."""


@dataclass(frozen=True, slots=True)
class Resend:
    """What came of a message that a phone could not decrypt; `resent_as`: the job that sends it again."""

    id: int
    resent_as: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """A job whose message left or may have: its `state` is `sent` or `in_doubt`."""

    id: int
    token: int
    state: JobState
    message_id: str | None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A claim without a lease."""

    claim: Claim
    node: str
    """Its name when it took the lease."""
    incarnation: UUID
    """The supervisor that made the claim."""
    shard: int
    drained: bool
    """Nothing was in flight when the lease was given back: the claim appeared later, and never reached a worker."""
    alive: bool
    """Whether that supervisor is."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A job in doubt, with its claim as it was before."""

    claim: Claim
    shard: int
    incarnation: UUID
    """The supervisor that made the claim."""
    lost: bool
    """It was given up without a journal, because that supervisor's node was lost."""


_KEPT_BACK: Final = {
    "device": "its device was removed",
    "group": "its device group was removed",
    "campaign": "its campaign was cancelled",
    "key": "another job has its dedupe_key",
    "order": "a job before it in its order group will never be sent",
}
"""Why a job that was not sent cannot be queued again, by the obstacle of the view `retries`."""


def _kept_back(release: Release, obstacle: str) -> Finish:
    """The end of a job in doubt that was not sent and cannot be queued again."""
    if obstacle in (JobState.EXPIRED, JobState.OPTED_OUT):
        error = {"expired": "not sent before expires_at", "opted_out": "the recipient opted out"}[obstacle]
        return Finish(release.claim, JobState(obstacle), release.failures, None, error, ErrorClass(obstacle))
    error = f"not handed over, and not to be queued again: {_KEPT_BACK.get(obstacle, obstacle)}"
    return Finish(release.claim, JobState.FAILED, release.failures, None, error, ErrorClass.CANCELLED)


class Jobs(Statements):
    """What the daemon does with jobs."""

    async def cycle(self, settlement: Settlement, requests: Sequence[ClaimRequest]) -> Cycle:
        """Settle, then claim: one round trip and one commit. Raises DatabaseError; then both may or may not have happened."""
        async with self._database.connection() as connection:
            return await run_cycle(connection, self._database.queries, settlement, requests)

    async def finish_remembered(
        self, known: Sequence[Remembered], in_flight: Collection[int], error: str
    ) -> list[tuple[int, str | None, str]]:
        """End those of these jobs that the database has live, but for those of these ids; `error`: of those in doubt.

        Returns the id, device and campaign of each that ended.
        """

        def ended(*, id: int, device_id: str | None, campaign: str) -> tuple[int, str | None, str]:  # noqa: A002  # a column
            return id, device_id, campaign

        fields = {"ids": "id", "tokens": "token", "states": "state", "message_ids": "message_id"}
        params = {**arrays(known, **fields), "in_flight": list(in_flight), "error": error}
        return await self._database.rows(ended, "finish_remembered", params)

    async def find_doubts(self, ids: Sequence[int], incarnations: Collection[UUID]) -> list[Doubt]:
        """Jobs in doubt that a journal may resolve: those with these ids, and those that were given up with a lost node.

        The latter only if one of these incarnations had claimed them.
        """

        def doubt(*, shard: int, incarnation: UUID, lost: bool, **claim: Any) -> Doubt:
            return Doubt(Claim(**claim), shard, incarnation, lost)

        params = {"ids": list(ids), "incarnations": list(incarnations)}
        return await self._database.rows(doubt, "find_doubts", params)

    async def resolve_doubts(self, decisions: Sequence[Finish | Release]) -> list[int]:
        """End jobs in doubt, or put them back into the queue, as `shardd.queue.settle.resolve` decides. Returns the ids.

        A job that was not sent and cannot be queued again (its campaign was cancelled meanwhile) ends.
        """
        finishes = [each for each in decisions if isinstance(each, Finish)]
        if releases := [each for each in decisions if isinstance(each, Release)]:
            fields = {"worker_deaths": "worker_deaths", "errors": "error", "error_classes": "error_class"}
            params = arrays(releases, **CLAIM_KEY, failures="failures", **fields)
            rows = await self._database.rows(Record, "return_doubts", params)
            obstacles = {row["id"]: row["obstacle"] for row in rows}
            finishes += [_kept_back(each, why) for each in releases if (why := obstacles.get(each.claim.id))]
            changed = [id_ for id_, obstacle in obstacles.items() if obstacle is None]
        else:
            changed = []
        if finishes:
            fields = {"message_ids": "message_id", "errors": "error", "error_classes": "error_class"}
            more = {"states": "state", "failures": "failures", "members_without_keys": "members_without_keys"}
            params = arrays(finishes, **CLAIM_KEY, **more, **fields)
            changed += await self._database.column("resolve_doubts", params)
        return changed

    async def promote_due(self, most: int) -> tuple[int, list[WorkHint]]:
        """Let due jobs join their lanes: how many did, and the hints of those that have a device."""
        rows = await self._database.rows(Record, "promote_due", {"most": most})
        return len(rows), hints(rows)

    async def new_work(self, seen: int, most: int) -> tuple[list[WorkHint], int, int]:
        """Hints of the next `most` jobs after the id `seen`, one for each lane; the highest id; the number of jobs."""
        rows = await self._database.rows(Record, "new_work", {"seen": seen, "most": most})
        newest, jobs = (rows[0]["newest"], rows[0]["jobs"]) if rows else (seen, 0)
        return hints(rows), newest, jobs

    async def newest_id(self) -> int:
        """The highest id of a live job."""
        return int(await self._database.value("newest_id"))

    async def find_work(self, per_device: int, page: int) -> AsyncGenerator[list[WorkHint]]:
        """A hint for each lane that has jobs: of each device the first `per_device` lanes, in pages of `page` lanes."""
        device, lane = "", ""
        while True:
            params = {"after_device": device, "after_lane": lane, "per_device": per_device, "most": page}
            rows = await self._database.rows(Record, "find_work", params)
            yield hints(rows)
            if len(rows) < page:
                return
            device = rows[-1]["device_id"]
            lane = rows[-1]["lane"] if rows[-1]["of_device"] < per_device else BEHIND_EVERY_LANE

    async def find_lanes(self, device_id: str, after_lane: str, most: int) -> list[WorkHint]:
        """Hints of up to `most` lanes of a device that have jobs, behind one of its lanes."""
        params = {"device_id": device_id, "after_lane": after_lane, "most": most}
        return hints(await self._database.rows(Record, "find_lanes", params))

    async def announce_work(self, device_ids: Sequence[str]) -> None:
        """Tell all nodes that there are jobs of these devices; an empty id: jobs of a device group."""
        await self._database.execute("announce_work", {"device_ids": list(device_ids)})

    async def expire(self, most: int) -> int:
        """End jobs whose `expires_at` has passed; returns how many."""
        return len(await self._database.column("expire_jobs", {"most": most}))

    async def advance_order_groups(self, after: OrderGroup, most: int) -> tuple[list[WorkHint], OrderGroup | None]:
        """Let jobs join their lanes whose predecessors were sent; settling does so, too, but cannot see everything.

        Those behind a job that will never be sent end. Looks at up to `most` order groups behind `after`, and returns the
        jobs' hints, and the last group that it looked at; None: there are no more.
        """
        params = {"after_producer": after[0], "after_group": after[1], "most": most}
        held = await self._database.rows(Record, "held_order_groups", params)
        last = (held[-1]["producer"], held[-1]["order_group"]) if len(held) == most else None
        stuck = group_arrays([(row["producer"], row["order_group"]) for row in held if row["stuck"]])
        if not stuck["groups"]:
            return [], last
        await self._database.execute("end_dead_order_groups", stuck)
        rows = await self._database.rows(Record, "advance_order_groups", stuck)
        return hints([row for row in rows if not row["scheduled"]]), last

    def claims_of_incarnation(self, incarnation: UUID) -> JobPass[Claim]:
        """The claims of a supervisor that the database has."""
        return JobPass(self._database, "claims_of_incarnation", Claim, {"incarnation": incarnation})

    async def live_claims(self, ids: Sequence[int], incarnation: UUID) -> list[Claim]:
        """The claims of a supervisor among these jobs."""
        return await self._database.rows(Claim, "live_claims", {"ids": list(ids), "incarnation": incarnation})

    def old_claims(self, age: float, incarnation: UUID) -> JobPass[tuple[Claim, str, bool]]:
        """Claims of more than `age` seconds of a supervisor or without a lease: (claim, node, whether it is the supervisor's)."""

        def old(*, node: str, ours: bool, **claim: Any) -> tuple[Claim, str, bool]:
            return Claim(**claim), node, ours

        return JobPass(self._database, "old_claims", old, {"age": age, "incarnation": incarnation})

    def orphaned_claims(self, grace: float) -> JobPass[Orphan]:
        """Claims without a lease. `grace`: seconds after which a silent supervisor counts as dead."""

        def orphan(
            *, node: str, incarnation: UUID, shard: int, drained: bool, node_alive: bool, **claim: Any
        ) -> Orphan:
            return Orphan(Claim(**claim), node, incarnation, shard, drained, node_alive)

        return JobPass(self._database, "orphaned_claims", orphan, {"grace": grace})

    async def save_receipt(self, receipt: Receipt) -> int:
        """Record what became of sent messages. Returns how many have a finished job.

        A receipt that names its claim settles it first, if its answer was lost. The recipient's addresses are remembered as
        those of the person to whom the job was.
        """
        found = await self._save_receipt(receipt)
        if found and receipt.addresses:
            params = {"device_id": receipt.device_id, "message_ids": receipt.message_ids}
            persons = await self._database.column("persons_of_messages", params)
            others = {recipient_at(address).address for address in receipt.addresses}
            if pairs := [(person, other) for person in persons for other in others]:
                addresses, named = zip(*pairs, strict=True)
                await self._database.execute(
                    "learn_addresses", {"addresses": list(addresses), "others": list(named), "moved": False}
                )
        return found

    async def _save_receipt(self, receipt: Receipt) -> int:
        if receipt.kind == "unreadable":
            params = {name: getattr(receipt, name) for name in ("device_id", "message_ids", "by")}
            return await self._database.execute("save_retry_receipt", {**params, "delay": RESEND_DELAY})
        params = {
            name: getattr(receipt, name) for name in ("device_id", "message_ids", "kind", "at", "error", "error_class")
        }
        found = 0 if receipt.kind == "sent" else await self._database.execute("save_receipt", params)
        if found or receipt.claim is None:
            return found
        job, epoch, attempt, token = receipt.claim
        failed = receipt.kind == "failed"
        state = JOB_TRANSITIONS[JobState.IN_DOUBT][Verdict.PERMANENT if failed else Verdict.SENT]
        claim = {"id": job, "epoch": epoch, "attempt": attempt, "token": token, "state": state.value}
        text = {"message_id": receipt.message_ids[0], "error": receipt.error, "error_class": receipt.error_class}
        if not await self._database.value("confirm_claim", claim | text):
            return 0
        if receipt.kind in ("delivered", "read"):
            await self._database.execute("save_receipt", params)
        return 1

    async def resend_unreadable(self, policy: str, max_resends: int, most: int) -> list[Resend]:
        """Send messages again that the phones of their recipients could not decrypt, or decide not to."""
        params = {"policy": policy, "max_resends": max_resends, "most": most}
        return await self._database.rows(Resend, "resend_unreadable", params)

    async def prepare_archive(self) -> None:
        """Create the archive's next partitions."""
        await self._database.execute("prepare_archive")


def hints(rows: Sequence[Mapping[str, Any]]) -> list[WorkHint]:
    """Jobs of device groups have no lane until they have a device."""
    return [(row["device_id"], row["lane"], (row["ord"], row["id"])) for row in rows if row["device_id"] is not None]


class Counts(Statements):
    """Numbers of the whole queue, on a connection with the planner's own plans."""

    async def depth(
        self, opens: Mapping[str, float] | None = None, shards: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Live jobs: queued, scheduled, sending, paused_jobs, waits, and oldest_due_age (seconds; None: none may be sent).

        `paused_jobs`: those of paused campaigns; `waits`: queued jobs by what they wait for. `opens`: in how many seconds devices
        may send again, by id; negative: since when they may. Others may at any time. `shards`: the state of the shard of each
        device whose shard takes no jobs. The jobs are counted page by page (see `JobPass`).
        """
        opens, shards = opens or {}, shards or {}
        ids = list(opens.keys() | shards.keys())
        params = {
            "device_ids": ids,
            "opens": [opens.get(one) for one in ids],
            "shards": [shards.get(one) for one in ids],
        }
        pages = await JobPass(self._database, "queue_depth", Record, params).rest()
        ages = [float(age) for page in pages if (age := page.pop("oldest_due_age")) is not None]
        total: Counter[str] = Counter()
        waits: Counter[str] = Counter()
        for page in pages:
            waits.update(page.pop("waits"))
            total.update(page)
        return {**total, "waits": dict(waits.most_common()), "oldest_due_age": max(0.0, *ages) if ages else None}

    async def doubts(self) -> int:
        """Jobs in doubt, which wait for an operator."""
        return int(await self._database.value("count_doubts"))

    async def unreadable(self) -> dict[str, int]:
        """Of the last 24 hours: unreadable messages, and how many of them were sent again (`resent`)."""
        (counts,) = await self._database.rows(Record, "count_unreadable")
        return counts

    async def campaigns(self) -> dict[str, int]:
        """Of those with live jobs: running_campaigns and paused_campaigns."""
        (counts,) = await self._database.rows(Record, "count_campaigns")
        return counts
