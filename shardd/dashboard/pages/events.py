"""The newest events, and those that follow, as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.live import EVENTS, Live
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.event_kinds import EventKind, fits, names_a_kind
from shardd.queue.events import EventRow, Events, words_of

MOST: Final = 200
"""Events on the page: the oldest go when new ones come."""
AMONG: Final = 20_000
"""Events among which those of a filter are looked for."""
GROUPS: Final = ("job.*", "message.*", "device.*")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a page shows; None passes everything."""

    kind: str | None
    device: str | None

    def wants(self, event: EventRow) -> bool:
        """Whether it is one of them."""
        if self.device is not None and event.device_id != self.device:
            return False
        return self.kind is None or fits(self.kind, event.kind)


def filter_of(query: Mapping[str, str]) -> Filter:
    """Of a request. Raises UsageError."""
    return Filter(fields.text(query, "kind"), fields.text(query, "device"))


def routes(site: Site, live: Live) -> list[web.RouteDef]:
    """See the module."""

    def row(event: EventRow) -> str:
        return site.render("event-row.html", None, event=event, what=words_of(event))

    live.events_as(row)

    async def events(request: web.Request, sign_in: SignIn) -> web.Response:
        chosen = filter_of(request.query)
        if chosen.kind is not None:
            _check(chosen.kind)
        live.watch()
        kinds = None if chosen.kind is None else [chosen.kind]
        found = await Events(site.database).recent(MOST, AMONG, kinds, chosen.device)
        return site.page(
            "events.html",
            sign_in,
            rows="".join(row(event) for event in reversed(found)),
            empty=not found,
            chosen=chosen,
            kinds=[*GROUPS, *EventKind],
            topic=EVENTS,
            most=MOST,
            among=AMONG,
        )

    return [web.get("/events", site.signed_in(events))]


def _check(kind: str) -> None:
    if not names_a_kind(kind):
        raise UsageError(f"kind is {kind[: fields.QUOTED]!r}: choose one of the list")
