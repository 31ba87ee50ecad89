"""Pairing links for programs: which devices wait for a phone, making links for them, and ending one."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shardd.dashboard.api.acting import act_operation, failure_recorded, recorded
from shardd.dashboard.api.looking import Limit, LookCalls
from shardd.dashboard.api.models import Acted, struct_of
from shardd.dashboard.api.operations import LOOK, Call, Operation
from shardd.dashboard.api.problems import CONFLICT, NO_SUCH, ProblemError
from shardd.dashboard.api.reading import read_body
from shardd.dashboard.phone_links import Made, make_links, site_address
from shardd.dashboard.phone_list import MOST, PhoneList
from shardd.dashboard.site import Site
from shardd.pairing.link_address import warning_of
from shardd.plain import plain
from shardd.queue.pairing_links import MINUTES, USUAL_MINUTES, PairingLinks, PhoneRow
from shardd.queue.queries import Queries
from shardd.words import count

UNKNOWN: Final = "unknown; the others: shardd device list"
Minutes: Final[Any] = Literal[MINUTES]
LINK_STATES: Final = ("none", "unopened", "opened", "left", "ended", "paired")
_HIDDEN: Final = ("session", "ended", "is_left")
Phone: Final = struct_of(
    PhoneRow,
    "Phone",
    without=_HIDDEN,
    number=str | None,
    link_state=Literal[LINK_STATES],
)


class PhoneFilter(msgspec.Struct, forbid_unknown_fields=True):
    """Which devices."""

    search: str | None = None
    after: str | None = None
    limit: Limit = 100


class Phones(msgspec.Struct):
    """Devices that a phone is to be linked to, or was just now, and the last link of each, by id."""

    phones: list[Phone]  # type: ignore[valid-type]  # made of a row
    later: str | None
    """Pass it as `after` to go on; null: there are no more."""


class NewLinks(msgspec.Struct, forbid_unknown_fields=True):
    """For which devices."""

    devices: Annotated[list[str], Meta(min_length=1, max_length=MOST)]
    minutes: Minutes = USUAL_MINUTES
    """How long the links live."""
    new_number: bool = False
    """Allow another number than the device had before."""


class Link(msgspec.Struct):
    """What a device got, or why nothing."""

    device: str
    link: str | UnsetType = UNSET
    """An address, which is told once."""
    ends_at: str | UnsetType = UNSET
    why: str | UnsetType = UNSET
    """Why there is none."""


class Links(msgspec.Struct):
    """In the order of the request."""

    links: list[Link]
    warning: str | None
    """Why the links are of no use on a phone; null: they are."""


class PhoneCalls:
    """See the module."""

    def __init__(self, site: Site, looking: LookCalls) -> None:
        self._site = site
        self._looking = looking

    def operations(self) -> list[Operation]:
        """See the module."""
        return [
            Operation(
                method="GET",
                path="/pairing-links",
                name="list_pairing_links",
                summary="List devices that wait for a phone, with their pairing links",
                may=LOOK,
                handle=self.phones,
                query=PhoneFilter,
                answer=Phones,
            ),
            act_operation(
                "/pairing-links",
                "make pairing links",
                self.make_pairing_links,
                "Make links with which the owners of phones link them",
                NewLinks,
                required=True,
                about="Each is for one device and one browser, and replaces the device's last one. Whoever has a link can link a "
                "phone to its device. Devices that cannot have one are told with `why`; if none can, nothing was done.",
                answer=Links,
            ),
            act_operation(
                "/pairing-links/{device}/revoke",
                "revoke pairing link",
                self.revoke_pairing_link,
                "End the pairing link of a device",
            ),
        ]

    async def phones(self, call: Call) -> Any:
        """As the page of phones."""
        asked: PhoneFilter = call.query
        links = PairingLinks(self._site.database)
        found = await links.phones(after=asked.after or "", search=asked.search or "", most=asked.limit + 1)
        shown = found[: asked.limit]
        return {
            "phones": [_phone(one) for one in shown],
            "later": shown[-1].id if len(found) > asked.limit else None,
        }

    async def make_pairing_links(self, call: Call) -> Any:
        """As `shardd device link`."""
        given = read_body(NewLinks, call.body)
        wanted = PhoneList(list(dict.fromkeys(given.devices)), {}, [])
        address = site_address(self._site, call.request)
        detail = f"for {given.minutes} minutes"
        target = f"device {wanted.ids[0]}" if len(wanted.ids) == 1 else count(len(wanted.ids), "device")
        async with (
            failure_recorded(self._site, call, target, detail),
            self._site.acting(call.caller, "", detail) as acting,
        ):
            results, _ = await make_links(
                acting,
                wanted,
                minutes=given.minutes,
                made_by=f"token {call.caller.user}",
                new_number=given.new_number,
                address=address,
                unknown=UNKNOWN,
            )
            _refuse_none(results)
        return Links([_link(one) for one in results], warning_of(self._site.access.origin, address))

    async def revoke_pairing_link(self, call: Call) -> Acted:
        """As the page of phones."""
        name = call.path("device")

        async def work(database: Queries) -> Acted:
            await self._looking.find_device(database, name)
            if not await PairingLinks(database).revoke([name]):
                return Acted(done=False, words=f"nothing to do: device {name} has no link")
            return Acted(done=True, words=f"revoked the link of device {name}")

        return await recorded(self._site, call, f"device {name}", "", work)


def _phone(row: PhoneRow) -> dict[str, Any]:
    shown: dict[str, Any] = {name: value for name, value in plain(row).items() if name not in _HIDDEN}
    return shown | {"number": row.number, "link_state": row.link_state}


def _link(made: Made) -> Link:
    if made.link is None:
        return Link(made.device_id, why=made.error)
    return Link(made.device_id, link=made.url, ends_at=plain(made.link.ends_at))


def _refuse_none(results: list[Made]) -> None:
    """Raises ProblemError if no device got a link."""
    if any(one.link is not None for one in results):
        return
    first, others = results[0], len(results) - 1
    more = f"; nor {count(others, 'other device')}" if others else ""
    kind = NO_SUCH if first.is_unknown else CONFLICT
    words = f"no link was made: device {first.device_id} {'is ' if first.is_unknown else ''}{first.error}{more}"
    raise ProblemError(kind, words, field="devices", value=first.device_id)
