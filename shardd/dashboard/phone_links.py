"""Making links with which the owners of phones link them: the same for the page and the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from aiohttp import web

from shardd.dashboard.phone_list import PhoneList
from shardd.dashboard.site import Site
from shardd.queue.act_log import Acting
from shardd.queue.acts import named
from shardd.queue.devices import DeviceAdmin, DeviceRow, NewDevices
from shardd.queue.pairing_links import MadeLink, PairingLinks
from shardd.queue.queries import Queries
from shardd.states import DeviceState
from shardd.words import count


@dataclass(frozen=True, slots=True)
class Made:
    """What a device got."""

    device_id: str
    link: MadeLink | None
    url: str
    error: str
    is_unknown: bool = False
    """There is no such device."""

    @property
    def ends_at(self) -> str:
        """In ISO 8601; empty without a link."""
        return "" if self.link is None else f"{self.link.ends_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def site_address(site: Site, request: web.Request) -> str:
    """Where browsers find the page: as configured, else as this one found it."""
    return site.access.origin or f"http://{request.host}"


async def make_links(
    acting: Acting,
    wanted: PhoneList,
    *,
    minutes: int,
    made_by: str,
    new_number: bool,
    address: str,
    unknown: str,
) -> tuple[list[Made], set[str]]:
    """What each device of a list got, in its order, and which devices were added.

    `address`: with which the links begin; `unknown`: the error of a device that does not exist.
    """
    added = await _add(acting, wanted)
    made = await PairingLinks(acting.database).make(
        wanted.ids, lives=60.0 * minutes, made_by=made_by, new_number=new_number
    )
    many = len(wanted.ids)
    acting.target = f"device {wanted.ids[0]}" if many == 1 else f"{len(made):,} of {count(many, 'device')}"
    others = await _devices(acting.database, [one for one in wanted.ids if one not in made])
    results = [
        Made(one, made[one], made[one].url(address), "")
        if one in made
        else Made(one, None, "", _no_phone(others[one]) if one in others else unknown, one not in others)
        for one in wanted.ids
    ]
    return results, added


async def _add(acting: Acting, wanted: PhoneList) -> set[str]:
    """Add the devices of a list that say how they send and do not exist."""
    added: set[str] = set()
    for transport in sorted(set(wanted.new.values())):
        ids = [one for one, its in wanted.new.items() if its == transport]
        new = NewDevices(ids=ids, transport=transport, state=DeviceState.UNPAIRED)
        added |= await DeviceAdmin(acting.database).add(new)
    if added:
        target, _ = named("device", added)
        acting.before.append(("add", target))
    return added


async def _devices(database: Queries, ids: Sequence[str]) -> dict[str, DeviceRow]:
    return {one.id: one for one in await DeviceAdmin(database).find(ids=ids)} if ids else {}


def _no_phone(device: DeviceRow) -> str:
    return f"sends by {device.transport}, which has no phone to link"
