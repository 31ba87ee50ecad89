"""What tokens that operate may do with campaigns: add, set, pause, resume, cancel, revoke."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from shardd.dashboard.api.acting import act_in_parts, act_operation, acted, failure_recorded, recorded
from shardd.dashboard.api.looking import LookCalls
from shardd.dashboard.api.models import CAMPAIGN_ID, Acted, NewCampaign, Terms, Why
from shardd.dashboard.api.operations import Call, Operation
from shardd.dashboard.api.problems import BROKEN_OFF, CONFLICT, INVALID, SUPERVISOR, ProblemError
from shardd.dashboard.api.reading import SHOWN, read_body
from shardd.dashboard.job_acts import PATIENCE
from shardd.dashboard.site import Site
from shardd.queue.bulk_actions import REVOKE
from shardd.queue.campaigns import FINAL, CampaignAdmin, CampaignState, CampaignTerms
from shardd.queue.queries import Changes, Queries
from shardd.queue.recorded_jobs import jobs_of, report_words

_TERMS: Final = "label, weight, device_cap"
Work = Callable[[CampaignAdmin, str], Awaitable[Acted]]
"""What is done to the campaign of a name, in a transaction."""


class CampaignActs:
    """See the module."""

    def __init__(self, site: Site, looking: LookCalls) -> None:
        self._site = site
        self._looking = looking

    def operations(self) -> list[Operation]:
        """See the module."""
        one = "/campaigns/{campaign}"
        return [
            act_operation(
                "/campaigns",
                "add",
                self.add_campaign,
                "Begin a campaign",
                NewCampaign,
                required=True,
                about="One that exists on these terms is left as it is: `done` is false then.",
            ),
            act_operation(
                f"{one}/set",
                "set",
                self.set_campaign,
                "Change the terms of a campaign",
                Terms,
                required=True,
                about=f"Those that are given, of {_TERMS}; an empty label, or a `device_cap` of 0, means none.",
                problems=(SUPERVISOR,),
            ),
            act_operation(f"{one}/pause", "pause", self.pause_campaign, "Pause a campaign; its jobs wait", Why),
            act_operation(f"{one}/resume", "resume", self.resume_campaign, "Resume a paused campaign"),
            act_operation(
                f"{one}/cancel",
                "cancel",
                self.cancel_campaign,
                "Cancel a campaign for good; its waiting jobs end unsent",
                Why,
            ),
            act_operation(
                f"{one}/revoke",
                "revoke",
                self.revoke_campaign,
                "Delete the sent messages of a campaign for everyone",
                problems=(BROKEN_OFF,),
                about=f"As many as are found in {PATIENCE:g} seconds; repeat it until `done` is false. What waits is still "
                "sent: pause or cancel the campaign first.",
            ),
        ]

    async def add_campaign(self, call: Call) -> Acted:
        """As `shardd campaign add`."""
        given = read_body(NewCampaign, call.body)
        if not re.fullmatch(CAMPAIGN_ID, given.id):
            fix = "write at most 64 of the characters A-Z a-z 0-9 . _ : + @ -, the first a letter or a digit"
            shown = given.id[:SHOWN]
            raise ProblemError(INVALID, f"id is {shown}: {fix}", field="id", value=shown, fix=fix)
        terms = _terms(given)

        async def work(database: Queries) -> Acted:
            campaigns = CampaignAdmin(database)
            if await campaigns.add([given.id], terms, CampaignState.PAUSED if given.paused else CampaignState.RUNNING):
                return Acted(done=True, words=f"added campaign {given.id}")
            there = await campaigns.title(given.id)
            assert there is not None  # campaigns are never deleted
            if there.state == CampaignState.CANCELLED:
                raise _conflict(given.id, FINAL, field="id")
            if not terms.are_of(there):
                its = f"label {there.label or 'none'}, weight {there.weight:g}, device_cap {there.device_cap or 'none'}"
                fix = "change them with POST …/set"
                raise _conflict(
                    given.id, f"already exists with other terms ({its}), and is unchanged: {fix}", "id", fix
                )
            return Acted(done=False, words=f"campaign {given.id} already exists")

        return await recorded(self._site, call, f"campaign {given.id}", terms.words, work)

    async def set_campaign(self, call: Call) -> Acted:
        """As `shardd campaign set`."""
        terms = _terms(read_body(Terms, call.body))
        if terms == CampaignTerms():
            fix = f"send one or more of {_TERMS}"
            raise ProblemError(INVALID, f"nothing is to be changed: {fix}", field="label", fix=fix)
        zone = (await self._looking.settings()).pacing.timezone

        async def work(campaigns: CampaignAdmin, name: str) -> Acted:
            return acted("campaign", name, await campaigns.change([name], terms, zone), "changed", f": {terms.words}")

        return await self._one(call, work, terms.words)

    async def pause_campaign(self, call: Call) -> Acted:
        """As `shardd campaign pause`."""
        why = read_body(Why, call.body).why

        async def work(campaigns: CampaignAdmin, name: str) -> Acted:
            return _unless_final(name, await campaigns.set_state([name], CampaignState.PAUSED, why), "paused")

        return await self._one(call, work, why or "")

    async def resume_campaign(self, call: Call) -> Acted:
        """As `shardd campaign resume`."""

        async def work(campaigns: CampaignAdmin, name: str) -> Acted:
            return _unless_final(name, await campaigns.set_state([name], CampaignState.RUNNING), "resumed")

        return await self._one(call, work)

    async def cancel_campaign(self, call: Call) -> Acted:
        """As `shardd campaign cancel`."""
        why = read_body(Why, call.body).why

        async def work(campaigns: CampaignAdmin, name: str) -> Acted:
            ended = await campaigns.cancel([name], why)
            words = f"cancelled campaign {name}" if ended else f"campaign {name} was cancelled already"
            return Acted(done=bool(ended), words=words)

        return await self._one(call, work, why or "")

    async def revoke_campaign(self, call: Call) -> Acted:
        """As `shardd campaign revoke`."""
        name = call.path("campaign")
        async with failure_recorded(self._site, call, f"campaign {name}"):
            await self._looking.find_campaign(self._site.database, name)
        report = await act_in_parts(self._site, call, REVOKE, jobs_of(name))
        return Acted(done=report.done > 0, words=report_words(REVOKE, report))

    async def _one(self, call: Call, work: Work, detail: str = "") -> Acted:
        name = call.path("campaign")

        async def all_of_it(database: Queries) -> Acted:
            await self._looking.find_campaign(database, name)
            return await work(CampaignAdmin(database), name)

        return await recorded(self._site, call, f"campaign {name}", detail, all_of_it)


def _unless_final(name: str, changes: Changes, past: str) -> Acted:
    """What came of pausing or resuming. Raises ProblemError for a campaign that was cancelled."""
    if not changes.found:
        raise _conflict(name, FINAL)
    return acted("campaign", name, changes, past)


def _terms(given: Terms) -> CampaignTerms:
    return CampaignTerms(label=given.label, weight=given.weight, device_cap=given.device_cap)


def _conflict(name: str, why: str, field: str = "campaign", fix: str | None = None) -> ProblemError:
    return ProblemError(CONFLICT, f"campaign {name}: {why}", field=field, value=name, fix=fix)
