"""Links with which the owner of a phone links it to a device: the statements of `sql/pairing_links.sql` as typed calls.

The database has only hashes: of the secret in a link, and of the cookie of the browser that opened it. So any node's dashboard
can serve a link, and who reads the database or a backup of it cannot use one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shardd.config import TRANSPORTS
from shardd.queue.queries import Record, Statements, first
from shardd.queue.sessions import number_of
from shardd.states import DeviceState

PAIRED: Final = "paired"
"""The outcome of a try that linked a phone; any other is a `PairingFailure`."""
TO_LINK: Final = (DeviceState.UNPAIRED, DeviceState.LOGGED_OUT)
"""States out of which only a pairing leads."""
MINUTES: Final = (5, 15, 30, 60)
"""How long a link may live."""
USUAL_MINUTES: Final = 15
LEFT_AFTER: Final = 150.0
"""Seconds without the page after which a link is closed: who types a code on the same phone has another app in front of it."""
MOST_TRIES: Final = 5
"""Tries of one link: each starts a process, and WhatsApp counts them, too."""
_LINKABLE: Final = [name for name, definition in TRANSPORTS.items() if definition.has_sessions]


def digest(secret: str) -> bytes:
    """The hash of a secret. It is random and long, so no slow hash is needed."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()  # a cookie may have any bytes


@dataclass(frozen=True, slots=True)
class MadeLink:
    """A new link."""

    device_id: str
    secret: str
    ends_at: datetime

    def url(self, site: str) -> str:
        """`site`: the address of the dashboard."""
        return f"{site.rstrip('/')}/pair/{self.secret}"


@dataclass(frozen=True, slots=True)
class PairingLink:
    """A link that works."""

    device_id: str
    label: str | None
    new_number: bool
    ends_at: datetime

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return (self.ends_at - datetime.now(UTC)).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneRow:
    """A device that a phone is to be linked to, or was just now, and its last link."""

    id: str
    label: str | None
    state: str
    reason: str | None
    state_since: datetime
    session: str | None
    made_by: str | None
    made_at: datetime | None
    ends_at: datetime | None
    seen_at: datetime | None
    tries: int | None
    outcome: str | None
    outcome_at: datetime | None
    remark: str | None
    ended: bool | None
    is_left: bool | None

    @property
    def number(self) -> str | None:
        """The number that it has or had."""
        return None if self.session is None else number_of(self.session)

    @property
    def link_state(self) -> str:
        """`none`, `unopened`, `opened`, `left` (its browser went away), `ended`, or `paired`."""
        if self.made_at is None:
            return "none"
        if self.outcome == PAIRED:
            return PAIRED
        if self.ended:
            return "ended"
        if self.seen_at is None:
            return "unopened"
        return "left" if self.is_left else "opened"


class PairingLinks(Statements):
    """What operators, and the browsers of phones' owners, do with links."""

    async def make(
        self, ids: Sequence[str], *, lives: float, made_by: str, new_number: bool = False
    ) -> Mapping[str, MadeLink]:
        """Make links that live `lives` seconds; by device, those that can have one. Each replaces the device's last one."""
        made = {one: secrets.token_urlsafe(32) for one in dict.fromkeys(ids)}
        params = {
            "ids": list(made),
            "hashes": [digest(secret) for secret in made.values()],
            "lives": lives,
            "made_by": made_by,
            "new_number": new_number,
            "transports": _LINKABLE,
        }
        rows = await self._database.rows(Record, "make_pairing_links", params)
        ends = {row["device_id"]: row["ends_at"] for row in rows}
        return {one: MadeLink(one, secret, ends[one]) for one, secret in made.items() if one in ends}

    async def revoke(self, ids: Sequence[str]) -> set[str]:
        """End links; returns the devices that had one."""
        return await self._ids("revoke_pairing_links", {"ids": list(ids)})

    async def unopened(self, secret: str) -> PairingLink | None:
        """A link that nobody has opened."""
        return first(await self._database.rows(PairingLink, "unopened_pairing_link", {"hash": digest(secret)}))

    async def open(self, secret: str, browser: str) -> bool:
        """Give it to the browser with this cookie; False when it does not work any more."""
        params = {"hash": digest(secret), "browser": digest(browser)}
        return await self._database.execute("open_pairing_link", params) == 1

    async def opened(self, browser: str) -> PairingLink | None:
        """The link that the browser with this cookie has opened, if it still works."""
        params = {"browser": digest(browser), "left_after": LEFT_AFTER}
        return first(await self._database.rows(PairingLink, "opened_pairing_link", params))

    async def see(self, browser: str) -> bool:
        """Note that the page is open; False when the link does not work any more."""
        params = {"browser": digest(browser), "left_after": LEFT_AFTER}
        return await self._database.execute("see_pairing_link", params) == 1

    async def begin_try(self, browser: str) -> bool:
        """Count a try; False when there were too many."""
        params = {"browser": digest(browser), "most": MOST_TRIES}
        return await self._database.execute("try_pairing_link", params) == 1

    async def end_try(self, browser: str, outcome: str, remark: str | None = None) -> None:
        """Note what came of it."""
        params = {"browser": digest(browser), "outcome": outcome, "remark": remark}
        await self._database.execute("end_pairing_try", params)

    async def phones(self, *, after: str = "", search: str = "", most: int) -> list[PhoneRow]:
        """Devices that a phone is to be linked to, or was just now."""
        params = {"after": after, "search": search, "most": most, "left_after": LEFT_AFTER}
        return await self._database.rows(PhoneRow, "phones_to_link", {**params, **_ALL})

    async def count(self) -> tuple[int, int]:
        """How many devices a phone is to be linked to, and how many of them have a link."""
        (row,) = await self._database.rows(Record, "count_phones_to_link", _ALL)
        return row["phones"], row["links"]

    async def ids(self, *, search: str = "", most: int) -> list[str]:
        """The devices that a phone is to be linked to."""
        return await self._database.column("ids_to_link", {"search": search, "most": most, **_ALL})


_ALL: Final = {"transports": _LINKABLE, "states": [str(state) for state in TO_LINK]}
