"""Campaigns: their progress, one with its devices, and what can be done with them: pause, resume, cancel, revoke."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.campaign_numbers import CampaignNumbers
from shardd.dashboard.job_acts import PLAN_LONGER, PLAN_PATIENCE, counted_in, plan_values, revoke_campaign
from shardd.dashboard.kept import Answer
from shardd.dashboard.live import Live
from shardd.dashboard.looks import Look
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, spoken
from shardd.errors import DatabaseError, UsageError
from shardd.queue.acts import ALREADY, nothing_to_do
from shardd.queue.bulk_actions import REVOKE
from shardd.queue.campaign_progress import Progress, progress_of
from shardd.queue.campaigns import (
    FINAL,
    CampaignAdmin,
    CampaignDetails,
    CampaignJobs,
    CampaignState,
    CampaignTitle,
    waiting_words,
    what_ends,
    what_waits,
)
from shardd.queue.job_admin import Traits
from shardd.states import JobState
from shardd.words import count, span

MOST: Final = 50
"""Campaigns of one page."""
TOP: Final = 50
"""Devices that a campaign's page lists."""
PATIENCE: Final = 0.05
"""Seconds for which a page waits for numbers; later ones reach it as they come."""
OLD: Final = 5.0
"""Seconds from which on the age of numbers that are being counted anew is shown."""
MOST_COUNTED: Final = 10_000
"""Live jobs that are counted before an act, while somebody waits: some milliseconds."""
NOTHING_SENT: Final = "There is nothing to revoke: none of its messages was sent."
LIVE_LIST: Final = "campaigns"
LIVE_ONE: Final = "campaign"
LIVE_DEVICES: Final = "campaign-devices"


def routes(site: Site, live: Live, numbers: CampaignNumbers) -> list[web.RouteDef]:
    """See the module."""
    pages = _Pages(site, live, numbers)
    live.on_events(numbers.begin, numbers.heard)
    live.part(LIVE_LIST, pages.live_rows)
    live.part(LIVE_ONE, lambda campaign: pages.part("campaign-live.html", campaign))
    live.part(LIVE_DEVICES, lambda campaign: pages.part("campaign-devices.html", campaign))
    one = "/campaigns/{campaign}"
    return [
        web.get("/campaigns", site.signed_in(pages.list)),
        web.get(one, site.signed_in(pages.show)),
        web.get(one + "/cancel", site.signed_in(pages.ask_cancel, operate=True)),
        web.post(one + "/cancel", site.signed_in(pages.cancel, act="cancel")),
        web.get(one + "/revoke", site.signed_in(pages.ask_revoke, operate=True)),
        web.get(one + "/revoke/{look}", site.signed_in(pages.revoke_goes_on, operate=True)),
        web.post(one + "/revoke", site.signed_in(pages.revoke, act="revoke")),
        web.post(
            one + "/{act:pause|resume}", site.signed_in(pages.set_state, act=lambda request: request.match_info["act"])
        ),
    ]


class _Pages:
    def __init__(self, site: Site, live: Live, numbers: CampaignNumbers) -> None:
        self._site, self._live, self._numbers = site, live, numbers
        self._admin = CampaignAdmin(site.database)

    async def rows(self, titles: Sequence[CampaignTitle], patience: float = 0.0) -> str:
        shown, deadline = [], time.monotonic() + patience
        for title in titles:
            answer = await self._numbers.totals.wait(title.id, max(0.0, deadline - time.monotonic()))
            shown.append((title, _progress(title, answer), None if answer is None else answer.error, _age(answer)))
        return self._site.render("campaigns-rows.html", None, rows=shown)

    async def live_rows(self, which: str) -> str:
        state, _, after = which.partition("/")
        known = CampaignState(state) if state in [*CampaignState] else None
        return await self.rows(await self._admin.page(MOST, after=after or None, state=known))

    async def part(self, template: str, campaign: str, patience: float = 0.0) -> str:
        title = await self._admin.title(campaign)
        if title is None:
            return ""
        answer = await self._numbers.details.wait(campaign, patience)
        return self._site.render(
            template,
            None,
            campaign=title,
            progress=_progress(title, answer),
            error=None if answer is None else answer.error,
            as_of=None if answer is None else answer.asked_at,
            age=_age(answer),
            devices=[] if answer is None or answer.value is None else _devices(answer.value),
            pools=[] if answer is None or answer.value is None else answer.value.pools,
            revocations={} if answer is None or answer.value is None else answer.value.revocations,
            top=TOP,
        )

    async def list(self, request: web.Request, sign_in: SignIn) -> web.Response:
        self._live.watch()
        state, after = fields.choice(request.query, "state", CampaignState), fields.text(request.query, "after")
        found = await self._admin.page(MOST + 1, after=after, state=state)
        return self._site.page(
            "campaigns.html",
            sign_in,
            rows=await self.rows(found[:MOST], PATIENCE),
            state=state,
            states=[*CampaignState],
            after=after,
            next=found[MOST - 1].id if len(found) > MOST else None,
            topic=f"{LIVE_LIST}:{state or ''}/{after or ''}",
        )

    async def show(self, request: web.Request, sign_in: SignIn) -> web.Response:
        self._live.watch()
        name = request.match_info["campaign"]
        title = await self._admin.title(name)
        if title is None:
            return self._site.sorry(sign_in, 404, f"There is no campaign {name}.")
        return self._site.page(
            "campaign.html",
            sign_in,
            campaign=title,
            live=await self.part("campaign-live.html", name, PATIENCE),
            devices=await self.part("campaign-devices.html", name),
        )

    async def ask_cancel(self, request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["campaign"]
        found = await self._admin.count_jobs([name], most=MOST_COUNTED)
        if not found:
            return self._site.sorry(sign_in, 404, f"There is no campaign {name}.")
        if found[0].state == CampaignState.CANCELLED:
            return web.Response(status=303, headers={"Location": f"/campaigns/{name}"})
        return self._site.page("campaign-cancel.html", sign_in, campaign=found[0], ends=what_ends(found))

    async def ask_revoke(self, request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["campaign"]
        found = await self._admin.count_jobs([name], most=MOST_COUNTED)
        if not found:
            return self._site.sorry(sign_in, 404, f"There is no campaign {name}.")
        begun = self._site.looks.begin(sign_in.lane, REVOKE, Traits(campaign=name))
        return self._site.page(
            "campaign-revoke.html",
            sign_in,
            campaign=name,
            waits=what_waits(found[0]),
            **await self._planned(name, begun, PLAN_PATIENCE),
        )

    async def revoke_goes_on(self, request: web.Request, sign_in: SignIn) -> web.Response:
        name, looks = request.match_info["campaign"], self._site.looks
        begun = looks.go_on(request.match_info["look"], sign_in.lane, REVOKE, Traits(campaign=name))
        return self._site.page("jobs-planned.html", sign_in, **await self._planned(name, begun, PLAN_LONGER))

    async def _planned(self, name: str, begun: Look, patience: float) -> dict[str, Any]:
        path = f"/campaigns/{quote(name, safe='')}/revoke"
        values = await plan_values(REVOKE, begun, patience, again=f"{path}/{begun.key}")
        button = f"Revoke {count(values.get('good', 0), 'message')}"
        return {**values, "button": button, "act": path, "nothing": NOTHING_SENT}

    async def revoke(self, request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["campaign"]
        if await self._admin.title(name) is None:
            raise UsageError(f"campaign {name}: unknown")
        answer = await revoke_campaign(self._site, sign_in, name, counted_in(request.query))
        self._numbers.outdate(name)
        return answer

    async def set_state(self, request: web.Request, sign_in: SignIn) -> web.Response:
        name, act = request.match_info["campaign"], request.match_info["act"]
        state = CampaignState.PAUSED if act == "pause" else CampaignState.RUNNING
        why = fields.text(await fields.form(request), "why", longest=fields.MOST_WHY) if act == "pause" else None
        async with self._site.acting(sign_in, f"campaign {name}", why or "") as acting:
            admin = CampaignAdmin(acting.database)
            changes = await admin.set_state([name], state, why)
            if not changes.found:
                raise UsageError(f"campaign {name}: {FINAL if await admin.title(name) else 'unknown'}")
            if changes.same:
                acting.result = nothing_to_do("campaign", name, ALREADY["paused" if act == "pause" else "resumed"])
        words = {
            "pause": f"Campaign {name} is paused: its jobs wait. What a worker has in flight is finished.",
            "resume": f"Campaign {name} is resumed.",
        }
        return self._site.done(sign_in, words[act] if changes.changed else acting.result)

    async def cancel(self, request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["campaign"]
        why = fields.text(await fields.form(request), "why", longest=fields.MOST_WHY)
        found = await self._count_all(name)
        async with self._site.acting(sign_in, f"campaign {name}") as acting:
            admin = CampaignAdmin(acting.database)
            ended = await admin.cancel([name], why) if found else set()
            if not ended:
                raise UsageError(f"campaign {name}: {'cancelled already' if found else 'unknown'}")
            waiting = waiting_words(found)
            acting.detail = waiting + (f"; {why}" if why else "")
        self._numbers.outdate(name)
        return self._site.done(sign_in, f"Campaign {name} is cancelled with {waiting}.")

    async def _count_all(self, name: str) -> Sequence[CampaignJobs]:
        """Its live jobs: all of them, as the record of an act has their number; but a slow count must not prevent it."""
        try:
            return await self._admin.count_jobs([name])
        except DatabaseError:
            return await self._admin.count_jobs([name], most=MOST_COUNTED)


class Bar:
    """A campaign's progress as a picture with its numbers."""

    def __init__(self, progress: Progress) -> None:
        states = progress.states
        self.total = progress.total
        waiting = states[JobState.QUEUED] + states[JobState.SCHEDULED]
        pieces = [(state, states[state]) for state in _ENDED] + [(JobState.SENDING, states[JobState.SENDING])]
        self.pieces = [(state.value, number) for state, number in pieces if number] + (
            [("waiting", waiting)] if waiting else []
        )
        self.words = ", ".join(f"{number:,} {spoken(state)}" for state, number in self.pieces)

    @property
    def places(self) -> list[tuple[str, float, float]]:
        """(state, x, width) of a bar that is 1000 wide; what is there is visible, however little it is."""
        widths = [max(3.0, 1000 * number / self.total) for _, number in self.pieces]
        scale = 1000 / sum(widths) if widths else 1.0
        places, x = [], 0.0
        for (state, _), width in zip(self.pieces, widths, strict=True):
            places.append((state, round(x, 1), round(width * scale, 1)))
            x += width * scale
        return places


_ENDED: Final = (
    JobState.SENT,
    JobState.FAILED,
    JobState.IN_DOUBT,
    JobState.OPTED_OUT,
    JobState.EXPIRED,
    JobState.CANCELLED,
)


def _progress(title: CampaignTitle, answer: Answer[CampaignDetails | None] | None) -> tuple[Progress, Bar] | None:
    """None: not counted yet."""
    if answer is None or answer.value is None:
        return None
    progress = progress_of(CampaignDetails(title, answer.value.shares, answer.value.pools), datetime.now(UTC))
    return progress, Bar(progress)


def _age(answer: Answer[CampaignDetails | None] | None) -> str:
    """How old numbers are that may be wrong by now, in words; empty: they are not."""
    if answer is None or answer.is_good or (age := time.time() - answer.asked_at) < OLD:
        return ""
    return span(age)


def _devices(details: CampaignDetails) -> list[object]:
    return [share for share in details.shares if share.device_id is not None]
