"""Jobs in doubt, and the decision of a person for one, for some, or for all that a filter finds.

The job that was inserted first is at the top: jobs in doubt are found by an index on their ids, and none has them by time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from shardd.config.transports.definition import KINDS
from shardd.dashboard import fields
from shardd.dashboard.job_acts import (
    NOT_SENT_NAME,
    PLAN_LONGER,
    PLAN_PATIENCE,
    RETRY_NAME,
    SENT_NAME,
    act_on_jobs,
    action_of,
    given_of,
    read_traits,
    recorded_as,
    shown_at,
)
from shardd.dashboard.job_rows import is_retryable
from shardd.dashboard.looks import Look
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import ErrorClass, UsageError
from shardd.pacing import CLASSES
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.job_search import JobSearch, Question
from shardd.states import JobState

MOST: Final = 100
"""Jobs of one page."""
_TOLD: Final = "What a journal or a platform reports later will not change that."
QUESTIONS: Final = {
    SENT_NAME: f"Record {{chosen}} as sent, as you decide? {_TOLD}",
    NOT_SENT_NAME: f"Record {{chosen}} as not sent (failed), as you decide? {_TOLD}",
    RETRY_NAME: "Retry {chosen}? What had reached its recipient after all is sent twice.",
}
"""What is asked before the chosen jobs are handled; the page puts their number in the place of `{chosen}`."""
DECISIONS: Final = {SENT_NAME: "Sent", NOT_SENT_NAME: "Not sent", RETRY_NAME: "Retry"}


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""
    search = JobSearch(site.database)

    async def doubts(request: web.Request, sign_in: SignIn) -> web.Response:
        traits, given = _read(request)
        after = fields.number(request.query, "after") or 0
        filtered = any(given.values())
        begun = site.looks.begin(sign_in.lane, action_of(SENT_NAME, sign_in), traits) if filtered else None
        total = await JobAdmin(site.database).count_doubts()
        page = await search.oldest(Question(traits=traits), MOST, after=after)
        return site.page(
            "doubts.html",
            sign_in,
            jobs=page.jobs,
            is_retryable=is_retryable,
            **({"total": total} if begun is None else await matching(begun, given, total, PLAN_PATIENCE)),
            given=given,
            filtered=filtered,
            on=page.newer and fields.link("/doubts", {**given, "after": page.newer}),
            unfinished=page.unfinished,
            first=fields.link("/doubts", given) if after else None,
            classes=CLASSES,
            error_classes=list(ErrorClass),
            kinds=KINDS,
            decisions=[(name, words, QUESTIONS[name]) for name, words in DECISIONS.items()],
            all_of_them={
                words: fields.link(f"/jobs/all/{name}", {**given, "state": JobState.IN_DOUBT.value})
                for name, words in DECISIONS.items()
            },
        )

    async def count_goes_on(request: web.Request, sign_in: SignIn) -> web.Response:
        traits, given = _read(request)
        begun = site.looks.go_on(request.match_info["look"], sign_in.lane, action_of(SENT_NAME, sign_in), traits)
        total = await JobAdmin(site.database).count_doubts()
        return site.page("doubts-matching.html", sign_in, **await matching(begun, given, total, PLAN_LONGER))

    async def matching(begun: Look, given: Mapping[str, str | None], total: int, patience: float) -> dict[str, Any]:
        """How many the filter finds, None: it is being counted; and how many there are."""
        seen = await begun.wait(patience)
        return {
            "matching": None if seen is None else sum(some.jobs for some in seen.counts),
            "total": total,
            "again": fields.link(f"/doubts/matching/{begun.key}", given),
        }

    async def decide(request: web.Request, sign_in: SignIn) -> web.Response:
        name, form = fields.chosen(request.match_info, "act", DECISIONS), await fields.form(request)
        ticked = form.getall("id", [])
        ids = sorted({number for one in ticked if (number := fields.number({"id": one}, "id")) is not None})
        if not ids:
            raise UsageError("no job is chosen: tick those that you know about")
        if len(ids) > MOST:
            raise UsageError(f"{len(ids)} jobs are chosen: choose at most {MOST}, or all that a filter finds")
        return await act_on_jobs(site, sign_in, name, ids, shown_as=JobState.IN_DOUBT, as_of=shown_at(form))

    return [
        web.get("/doubts", site.signed_in(doubts)),
        web.get("/doubts/matching/{look}", site.signed_in(count_goes_on)),
        web.post("/doubts/{act}", site.signed_in(decide, act=recorded_as)),
    ]


def _read(request: web.Request) -> tuple[Traits, dict[str, str | None]]:
    """The filters, and the fields that had them. Raises UsageError."""
    traits = replace(read_traits(request.query), state=JobState.IN_DOUBT)
    return traits, {name: value for name, value in given_of(traits).items() if name != "state"}
