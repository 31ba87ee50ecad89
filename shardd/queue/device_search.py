"""Devices page by page, in several orders, with the number of those in each state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from shardd.queue.devices import make_device, shown_state_of
from shardd.queue.queries import Params, Record, Statements, first
from shardd.queue.records import Device

MOST_COUNTED: Final = 1000
"""Jobs of a device, or of a campaign, from which on they are not counted for whom a page waits."""
CHUNK: Final = 1000
"""Ids that are looked at together for those of a shard, which only we can compute."""


class Order(StrEnum):
    """What comes first."""

    ID = "id"
    LABEL = "label"
    CHANGED = "changed"  # the state that changed last


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceQuestion:
    """Which devices are asked for; all must match, None: any."""

    state: str | None = None
    """May be `paused`."""
    transport: str | None = None
    device_group: str | None = None
    search: str | None = None
    """How the id or the label begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDevice(Device):
    """A device of a list."""

    queued: int
    """Its jobs that are in a lane, up to `MOST_COUNTED`."""

    @property
    def shown_state(self) -> str:
        """The state, or `paused`."""
        return shown_state_of(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePage:
    """What was found, in its order."""

    devices: list[ListedDevice]
    later: str | None = None
    """The page from this device on is the next; None: this is the last."""
    earlier: str | None = None
    """The page up to this device is the one before; None: this is the first."""


@dataclass(frozen=True, slots=True)
class GroupTitle:
    """A device group without its devices."""

    id: str
    label: str | None


class DeviceSearch(Statements):
    """Pages of devices. Every call raises DatabaseError."""

    async def states(self, question: DeviceQuestion, chosen: Callable[[str], bool] | None = None) -> dict[str, int]:
        """How many devices are in which state, whatever state is asked for. `chosen`: only these, by id."""
        rows = await self._database.rows(Record, "states_of_devices", asdict(question))
        counts = {row["state"]: len(row["ids"]) if chosen is None else sum(map(chosen, row["ids"])) for row in rows}
        return {state: number for state, number in counts.items() if number}

    async def page(
        self,
        question: DeviceQuestion,
        most: int,
        *,
        order: Order = Order.ID,
        after: str | None = None,
        before: str | None = None,
        chosen: Callable[[str], bool] | None = None,
        warm_days: int = 0,
    ) -> DevicePage:
        """Up to `most` devices: the first, or those next to a device. `chosen`: only these, by id; `warm_days`: of a warm-up."""
        params = {**asdict(question), "order": order.value}
        ids: list[str] = []
        if before is not None:
            ids = await self._ids_from(params, before, most + 1, chosen, back=True)
        backwards = len(ids) > most
        if not backwards:
            # Also when fewer than a page come before: the first page has them, and is full.
            after = after if before is None else None
            ids = await self._ids_from(params, after, most + 1, chosen, back=False)
        shown = ids[:most][::-1] if backwards else ids[:most]
        wanted = {"ids": shown, "most": MOST_COUNTED, "warm_days": warm_days}
        rows = await self._database.rows(partial(make_device, ListedDevice), "devices_of_page", wanted) if shown else []
        by_id = {row.id: row for row in rows}
        more = len(ids) > most
        return DevicePage(
            devices=[by_id[one] for one in shown if one in by_id],
            later=shown[-1] if shown and more else None,
            earlier=shown[0] if shown and (backwards or after is not None) else None,
        )

    async def groups(self, most: int) -> list[GroupTitle]:
        """The first device groups."""
        return await self._database.rows(GroupTitle, "first_groups", {"most": most})

    async def groups_of(self, device_id: str) -> list[GroupTitle]:
        """The device groups that a device is in."""
        return await self._database.rows(GroupTitle, "groups_of_device", {"id": device_id})

    async def group_label(self, group: str) -> str | None:
        """The label of a device group; None: it has none, or there is no such group."""
        return first(await self._database.column("group_label", {"id": group}))

    async def _ids_from(
        self, params: Params, start: str | None, most: int, chosen: Callable[[str], bool] | None, *, back: bool
    ) -> list[str]:
        found: list[str] = []
        chunk = most if chosen is None else CHUNK
        while len(found) < most:
            ids = await self._database.column("page_of_devices", {**params, "from": start, "back": back, "most": chunk})
            found += ids if chosen is None else filter(chosen, ids)
            if len(ids) < chunk:
                break
            start = ids[-1]
        return found[:most]
