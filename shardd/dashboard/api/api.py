"""All that can be asked, put together."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from aiohttp import web

from shardd.dashboard.api.campaign_acts import CampaignActs
from shardd.dashboard.api.document import document_of
from shardd.dashboard.api.event_stream import EventStreams
from shardd.dashboard.api.events import EventCalls, EventWaits
from shardd.dashboard.api.guard import Guard
from shardd.dashboard.api.jobs import JobCalls
from shardd.dashboard.api.looking import LookCalls
from shardd.dashboard.api.many_jobs import ManyJobsCalls
from shardd.dashboard.api.models import ProblemKind
from shardd.dashboard.api.node_acts import NodeActs
from shardd.dashboard.api.operating import OperateCalls
from shardd.dashboard.api.operations import ALL, Call, Operation
from shardd.dashboard.api.phones import PhoneCalls
from shardd.dashboard.api.problems import KINDS, NO_SUCH, ProblemError
from shardd.dashboard.api.serving import routes
from shardd.dashboard.campaign_numbers import CampaignNumbers
from shardd.dashboard.site import Site
from shardd.queue.api_tokens import ApiTokens
from shardd.queue.database import Database


class Api:
    """The room of programs in the dashboard's process."""

    def __init__(self, site: Site, sending: Database, numbers: CampaignNumbers) -> None:
        """`sending`: connections for tokens that send, so that they never use up those of the pages."""
        self._guard = Guard(ApiTokens(site.database), site.address_of)
        self._waiting = EventWaits(sending)
        self._events = EventCalls(sending, self._guard, self._waiting)
        self._streams = EventStreams(sending, self._guard, self._waiting)
        self._jobs = JobCalls(site, sending)
        self._looking = LookCalls(site, numbers)
        self._campaigns = CampaignActs(site, self._looking)
        self._phones = PhoneCalls(site, self._looking)
        self._many_jobs = ManyJobsCalls(site)
        self._node = NodeActs(site, self._looking)
        self._operating = OperateCalls(site, self._looking)
        self._site = site

    @cached_property
    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            *self._jobs.operations(),
            *self._events.operations(),
            *self._streams.operations(),
            *self._looking.operations(),
            *self._campaigns.operations(),
            *self._many_jobs.operations(),
            *self._phones.operations(),
            *self._operating.operations(),
            *self._node.operations(),
            *self._about_itself(),
        ]

    @cached_property
    def document(self) -> dict[str, Any]:
        """Of OpenAPI."""
        return document_of(self.operations)

    def routes(self) -> list[web.RouteDef]:
        """Everything below /api."""
        return routes(self.operations, self._guard, self._site)

    async def close(self) -> None:
        """End what runs by itself."""
        await self._waiting.close()

    def _about_itself(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/openapi.json",
                name="show_document",
                summary="Show this document",
                may=ALL,
                handle=self._show_document,
                answer=dict[str, Any],
            ),
            Operation(
                method="GET",
                path="/problems/{problem}",
                name="show_problem",
                summary="Describe a kind of problem",
                may=ALL,
                handle=_show_problem,
                answer=ProblemKind,
                problems=(NO_SUCH,),
            ),
        ]

    async def _show_document(self, _: Call) -> dict[str, Any]:
        return self.document


async def _show_problem(call: Call) -> ProblemKind:
    kind = KINDS.get(call.path("problem"))
    if kind is None:
        raise ProblemError(
            NO_SUCH, f"there is no problem {call.path('problem')[:80]}; those that are: {', '.join(KINDS)}"
        )
    return ProblemKind(type=kind.type, title=kind.title, status=kind.status, description=kind.means)
