"""What lanes wait for, in the database: the statements of `sql/lane_waits.sql`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardd.queue.queries import Statements
from shardd.queue.values import array


@dataclass(frozen=True, slots=True)
class LaneWait:
    """A lane that may not send for a while."""

    device_id: str
    lane: str
    why: str
    seconds: float
    """From now to its end."""


class LaneWaits(Statements):
    """What the daemon does with them."""

    async def save(self, waits: Mapping[tuple[str, str], tuple[str, float]]) -> None:
        """Record waits, by device and lane: why, and the seconds that are left (0: it has just ended). Raises DatabaseError."""
        params = {
            "device_ids": array([device for device, _ in waits]),
            "lanes": array([lane for _, lane in waits]),
            "whys": array([why for why, _ in waits.values()]),
            "seconds": [seconds for _, seconds in waits.values()],
        }
        await self._database.execute("save_lane_waits", params)

    async def current(self) -> list[LaneWait]:
        """Those that have not ended, of all nodes. Raises DatabaseError."""
        return await self._database.rows(LaneWait, "lane_waits")
