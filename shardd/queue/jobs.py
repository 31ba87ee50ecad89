"""Jobs in the database: the statements of `sql/jobs.sql` as typed calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from shardd.ipc import Outcome
from shardd.queue.cycle import Ask, Cycle, Place, Settlement, run_cycle
from shardd.queue.database import Database
from shardd.queue.settle import Claim
from shardd.states import JobState, Verdict

_Bigint = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_notification = msgspec.json.Decoder(tuple[str, _Bigint, _Bigint])


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
                "states": [state.value for _, state in known],
                "message_ids": [o.message_id for o, _ in known],
                "errors": [o.error for o, _ in known],
            },
        )
        return [row[0] for row in rows]

    async def promote_due(self, most: int) -> list[tuple[str, Place]]:
        """Let due jobs join their lines: (device, place) of each."""
        rows = await self._database.fetch_all("promote_due", {"most": most})
        return [(row[0], (row[1], row[2])) for row in rows]

    async def new_work(self, seen: int) -> tuple[list[tuple[str, Place]], int]:
        """Devices that got jobs since the id `seen`, with where their new jobs begin; and the highest id seen now."""
        rows = await self._database.fetch_all("new_work", {"seen": seen})
        return [(row[0], (row[1], row[2])) for row in rows], rows[0][3] if rows else seen

    async def newest_id(self) -> int:
        """The highest id of a live job."""
        rows = await self._database.fetch_all("newest_id")
        return int(rows[0][0])

    async def find_work(self) -> list[tuple[str, Place]]:
        """Every device that has jobs in line, with where its line begins."""
        rows = await self._database.fetch_all("find_work")
        return [(row[0], (row[1], row[2])) for row in rows]

    async def claims_of_epochs(self, epochs: Sequence[int]) -> list[Claim]:
        """What the database thinks is claimed under these epochs."""
        rows = await self._database.fetch_all("claims_of_epochs", {"epochs": list(epochs)})
        return [Claim(*row) for row in rows]

    async def orphaned_claims(self, grace: float) -> list[tuple[Claim, str, int, bool]]:
        """Claims without a lease: (claim, node, shard, whether that node's same supervisor still lives)."""
        rows = await self._database.fetch_all("orphaned_claims", {"grace": grace})
        return [(Claim(*row[:7]), row[7], row[8], row[9]) for row in rows]

    async def save_receipt(self, device_id: str, message_ids: Sequence[str], kind: str, at: float) -> int:
        """Note that messages were delivered or read; `at` in POSIX seconds. Returns how many have a finished job."""
        return await self._database.execute(
            "save_receipt", {"device_id": device_id, "message_ids": list(message_ids), "kind": kind, "at": at}
        )

    async def depth(self) -> dict[str, Any]:
        """Live jobs: queued, scheduled, sending, and oldest (seconds; None when nothing waits)."""
        row = (await self._database.fetch_all("queue_depth"))[0]
        oldest = None if row[3] is None else max(0.0, float(row[3]))
        return {"queued": row[0], "scheduled": row[1], "sending": row[2], "oldest_due_age": oldest}

    async def prepare_archive(self) -> None:
        """Make the archive's next partitions."""
        await self._database.execute("prepare_archive")


def read_place(notification: str) -> tuple[str, Place] | None:
    """The (device, place) that a notification of new work names; None: it names none.

    Every role of the database may notify, so nonsense is no error.
    """
    try:
        device_id, place, job_id = _notification.decode(notification)
    except msgspec.DecodeError:
        return None
    return device_id, (place, job_id)
