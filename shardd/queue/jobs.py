"""Jobs in the database: the statements of `sql/jobs.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.rows import TupleRow

from shardd.ipc import Outcome, Receipt
from shardd.queue.cycle import Ask, Cycle, Place, Settlement, group_arrays, run_cycle
from shardd.queue.database import Database
from shardd.queue.settle import Claim
from shardd.states import JobState, Verdict

Hint = tuple[str, str, Place]
"""(device, lane, place): where a job may stand."""


class Jobs:
    """The queue's statements over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cycle(self, settlement: Settlement, asks: Sequence[Ask]) -> Cycle:
        """Settle, then claim: one round trip and one commit. Raises DatabaseError; then both may or may not have happened."""
        async with self._database.connection() as connection:
            return await run_cycle(connection, self._database.queries, settlement, asks)

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

    async def promote_due(self, most: int) -> tuple[int, list[Hint]]:
        """Let due jobs join their lanes: how many did, and where those stand that have a device."""
        rows = await self._database.fetch_all("promote_due", {"most": most})
        return len(rows), [_hint(row) for row in rows if row[0] is not None]

    async def new_work(self, seen: int, most: int) -> tuple[list[Hint], int, int]:
        """Lanes of the next `most` jobs after the id `seen`, with where these begin; the highest id; how many jobs that were."""
        rows = await self._database.fetch_all("new_work", {"seen": seen, "most": most})
        newest, jobs = rows[0][4:6] if rows else (seen, 0)
        return [_hint(row) for row in rows if row[0] is not None], newest, jobs

    async def newest_id(self) -> int:
        """The highest id of a live job."""
        rows = await self._database.fetch_all("newest_id")
        return int(rows[0][0])

    async def find_work(self) -> list[Hint]:
        """Every lane that has jobs, with where it begins."""
        return [_hint(row) for row in await self._database.fetch_all("find_work")]

    async def expire(self, most: int) -> int:
        """End jobs whose time is over; returns how many did."""
        return len(await self._database.fetch_all("expire_jobs", {"most": most}))

    async def advance_order_groups(self) -> list[Hint]:
        """Let jobs join their lanes that wait for nobody any more; settling does so, too, but cannot see everything.

        Those that wait for a job that will never be sent end.
        """
        groups = group_arrays([(row[0], row[1]) for row in await self._database.fetch_all("held_order_groups")])
        if not groups["groups"]:
            return []
        await self._database.fetch_all("end_dead_order_groups", groups)
        rows = await self._database.fetch_all("advance_order_groups", groups)
        return [_hint(row) for row in rows if row[0] is not None and not row[4]]

    async def claims_of_epochs(self, epochs: Sequence[int]) -> list[Claim]:
        """What the database thinks is claimed under these epochs."""
        rows = await self._database.fetch_all("claims_of_epochs", {"epochs": list(epochs)})
        return [Claim(*row) for row in rows]

    async def orphaned_claims(self, grace: float) -> list[tuple[Claim, str, int, bool]]:
        """Claims without a lease: (claim, node, shard, whether that node's same supervisor still lives)."""
        rows = await self._database.fetch_all("orphaned_claims", {"grace": grace})
        return [(Claim(*row[:13]), row[13], row[14], row[15]) for row in rows]

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

    async def depth(self) -> dict[str, Any]:
        """Live jobs: queued, scheduled, sending, and oldest (seconds; None when nothing waits)."""
        row = (await self._database.fetch_all("queue_depth"))[0]
        oldest = None if row[3] is None else max(0.0, float(row[3]))
        return {"queued": row[0], "scheduled": row[1], "sending": row[2], "oldest_due_age": oldest}

    async def prepare_archive(self) -> None:
        """Make the archive's next partitions."""
        await self._database.execute("prepare_archive")


def _hint(row: TupleRow) -> Hint:
    return row[0], row[1], (row[2], row[3])
