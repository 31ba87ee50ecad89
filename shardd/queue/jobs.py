"""Jobs in the database: the statements of `sql/jobs.sql` as typed calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from psycopg.rows import TupleRow

from shardd.ipc import Outcome, Receipt
from shardd.queue.cycle import Cycle, OrderGroup, Settlement, group_arrays, run_cycle
from shardd.queue.database import Database
from shardd.queue.records import ClaimRequest, WorkHint
from shardd.queue.settle import Claim
from shardd.states import JobState, Verdict

BEHIND_EVERY_LANE: Final = "~"
"""A lane begins with a letter, a digit or a slash."""


class Jobs:
    """The queue's statements over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cycle(self, settlement: Settlement, requests: Sequence[ClaimRequest]) -> Cycle:
        """Settle, then claim: one round trip and one commit. Raises DatabaseError; then both may or may not have happened."""
        async with self._database.connection() as connection:
            return await run_cycle(connection, self._database.queries, settlement, requests)

    async def resolve_doubts(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Give jobs in doubt the outcome that a journal knew. Returns the ids that changed."""
        states = {Verdict.SENT: JobState.SENT, Verdict.PERMANENT: JobState.FAILED}
        known = [
            (outcome, states[Verdict(outcome.verdict)]) for outcome in outcomes if Verdict(outcome.verdict) in states
        ]
        if not known:
            return []
        rows = await self._database.fetch_all(
            "resolve_doubts",
            {
                "ids": [o.id for o, _ in known],
                "epochs": [o.epoch for o, _ in known],
                "attempts": [o.attempt for o, _ in known],
                "tokens": [o.token for o, _ in known],
                "states": [state.value for _, state in known],
                "message_ids": [o.message_id for o, _ in known],
                "errors": [o.error for o, _ in known],
                "error_classes": [o.error_class for o, _ in known],
            },
        )
        return [row[0] for row in rows]

    async def promote_due(self, most: int) -> tuple[int, list[WorkHint]]:
        """Let due jobs join their lanes: how many did, and where those stand that have a device."""
        rows = await self._database.fetch_all("promote_due", {"most": most})
        return len(rows), [_hint(row) for row in rows if row[0] is not None]

    async def new_work(self, seen: int, most: int) -> tuple[list[WorkHint], int, int]:
        """Lanes of the next `most` jobs after the id `seen`, with where these begin; the highest id; how many jobs that were."""
        rows = await self._database.fetch_all("new_work", {"seen": seen, "most": most})
        newest, jobs = rows[0][4:6] if rows else (seen, 0)
        return [_hint(row) for row in rows if row[0] is not None], newest, jobs

    async def newest_id(self) -> int:
        """The highest id of a live job."""
        rows = await self._database.fetch_all("newest_id")
        return int(rows[0][0])

    async def find_work(self, per_device: int, page: int) -> AsyncGenerator[list[WorkHint]]:
        """The lanes that have jobs, with where they begin: of each device the first `per_device`, in pages of so many lanes."""
        device, lane = "", ""
        while True:
            params = {"after_device": device, "after_lane": lane, "per_device": per_device, "most": page}
            rows = await self._database.fetch_all("find_work", params)
            yield [_hint(row) for row in rows]
            if len(rows) < page:
                return
            device, lane, _, _, of_device = rows[-1]
            if of_device >= per_device:
                lane = BEHIND_EVERY_LANE

    async def find_lanes(self, device_id: str, after_lane: str, most: int) -> list[WorkHint]:
        """Up to `most` lanes of a device that have jobs, behind one of its lanes."""
        params = {"device_id": device_id, "after_lane": after_lane, "most": most}
        return [_hint(row) for row in await self._database.fetch_all("find_lanes", params)]

    async def expire(self, most: int) -> int:
        """End jobs whose time is over; returns how many did."""
        return len(await self._database.fetch_all("expire_jobs", {"most": most}))

    async def advance_order_groups(self, after: OrderGroup, most: int) -> tuple[list[WorkHint], OrderGroup | None]:
        """Let jobs join their lanes that wait for nobody any more; settling does so, too, but cannot see everything.

        Those that wait for a job that will never be sent end. Looks at up to `most` order groups behind one of them, and
        returns where the jobs stand, and the last group that it looked at; None: there are no more.
        """
        params = {"after_producer": after[0], "after_group": after[1], "most": most}
        held = [(row[0], row[1], row[2]) for row in await self._database.fetch_all("held_order_groups", params)]
        last = held[-1][:2] if len(held) == most else None
        stuck = group_arrays([(producer, group) for producer, group, is_stuck in held if is_stuck])
        if not stuck["groups"]:
            return [], last
        await self._database.fetch_all("end_dead_order_groups", stuck)
        rows = await self._database.fetch_all("advance_order_groups", stuck)
        return [_hint(row) for row in rows if row[0] is not None and not row[4]], last

    async def claims_of_epochs(self, epochs: Sequence[int]) -> list[Claim]:
        """What the database thinks is claimed under these epochs."""
        rows = await self._database.fetch_dicts("claims_of_epochs", {"epochs": list(epochs)})
        return [Claim(**row) for row in rows]

    async def live_claims(self, ids: Sequence[int]) -> list[Claim]:
        """Which of these jobs are claimed, and how."""
        return [Claim(**row) for row in await self._database.fetch_dicts("live_claims", {"ids": list(ids)})]

    async def old_claims(self, age: float, epochs: Sequence[int]) -> list[tuple[Claim, str, bool]]:
        """Claims of more than `age` seconds under these epochs or without a lease: (claim, node, whether there is a lease)."""
        rows = await self._database.fetch_dicts("old_claims", {"age": age, "epochs": list(epochs)})
        found = []
        for row in rows:
            node, leased = row.pop("node"), row.pop("leased")
            found.append((Claim(**row), node, leased))
        return found

    async def orphaned_claims(self, grace: float) -> list[tuple[Claim, str, int, bool]]:
        """Claims without a lease: (claim, node, shard, whether that node's same supervisor still lives)."""
        found = []
        for row in await self._database.fetch_dicts("orphaned_claims", {"grace": grace}):
            node, shard, alive = row.pop("node"), row.pop("shard"), row.pop("node_alive")
            found.append((Claim(**row), node, shard, alive))
        return found

    async def save_receipt(self, receipt: Receipt) -> int:
        """Note what became of sent messages. Returns how many have a finished job."""
        return await self._database.execute(
            "save_receipt",
            {
                "device_id": receipt.device_id,
                "message_ids": receipt.message_ids,
                "kind": receipt.kind,
                "at": receipt.at,
                "error": receipt.error,
                "error_class": receipt.error_class,
            },
        )

    async def prepare_archive(self) -> None:
        """Make the archive's next partitions."""
        await self._database.execute("prepare_archive")


def _hint(row: TupleRow) -> WorkHint:
    return row[0], row[1], (row[2], row[3])
