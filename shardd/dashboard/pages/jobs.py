"""Jobs: the newest with filters, page by page, and acts on all that a filter finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from shardd.config.transports.definition import KINDS
from shardd.dashboard import fields
from shardd.dashboard.job_acts import (
    CANCEL_NAME,
    NOT_SENT_NAME,
    PLAN_LONGER,
    PLAN_PATIENCE,
    RETRY_NAME,
    REVOKE_NAME,
    SENT_NAME,
    act_on_traits,
    action_of,
    counted_in,
    given_of,
    plan_values,
    read_traits,
    recorded_as,
)
from shardd.dashboard.job_rows import rows_of
from shardd.dashboard.looks import Look
from shardd.dashboard.recipients import address_of
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import ErrorClass, UsageError
from shardd.pacing import CLASSES
from shardd.queue.bulk_actions import meant_by
from shardd.queue.job_admin import Traits
from shardd.queue.job_search import JobSearch, Question
from shardd.queue.trait_names import check_names
from shardd.states import JobState
from shardd.words import count

MOST: Final = 100
"""Jobs of one page."""
NOTHING: Final = "No job matches now."
TITLES: Final = {
    RETRY_NAME: "Retry jobs",
    CANCEL_NAME: "Cancel jobs",
    SENT_NAME: "Record as sent",
    NOT_SENT_NAME: "Record as not sent",
    REVOKE_NAME: "Revoke jobs",
}


FIELDS: Final = ("recipient", "group", *given_of(Traits()), "waits_for", "unreadable")
"""Those of the form of the list."""
WITHOUT_ACTS: Final = {
    "recipient": "Recipient",
    "group": "Group",
    "waits_for": "Waits for",
    "unreadable": "Unreadable",
}
"""Filters of the list that acts on all that match do not have, and their words on the page."""
CHOICES: Final[Mapping[str, Any]] = {
    "states": list(JobState),
    "classes": CLASSES,
    "error_classes": list(ErrorClass),
    "kinds": KINDS,
}


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""
    search = JobSearch(site.database)

    async def jobs(request: web.Request, sign_in: SignIn) -> web.Response:
        try:
            return await _list(site, search, request, sign_in)
        except UsageError as error:
            return _wrong(site, request, sign_in, error)

    async def more(request: web.Request, sign_in: SignIn) -> web.Response:
        """The rows with which a page goes on that was not full when its time was up."""
        question, given = await _read(site, request.query)
        before = fields.number(request.query, "before")
        most = fields.number(request.query, "most", most=MOST) or MOST
        turn = fields.number(request.query, "turn", most=1 << 30) or 1
        page = await search.page(question, most, before=before)
        listed = request.query.get("listed") == "1"
        return site.page("jobs-more.html", sign_in, **rows_of(page, given, most, turn=turn, listed=listed))

    async def plan(request: web.Request, sign_in: SignIn) -> web.Response:
        name, traits = _planned(request, sign_in)
        given = given_of(traits)
        begun = site.looks.begin(sign_in.lane, action_of(name, sign_in), traits)
        return site.page(
            "jobs-plan.html",
            sign_in,
            title=TITLES[name],
            back=fields.link("/jobs", given),
            filters={key.replace("_", " "): value for key, value in given.items() if value},
            **await planned(sign_in, name, traits, begun, PLAN_PATIENCE),
        )

    async def plan_goes_on(request: web.Request, sign_in: SignIn) -> web.Response:
        name, traits = _planned(request, sign_in)
        begun = site.looks.go_on(request.match_info["look"], sign_in.lane, action_of(name, sign_in), traits)
        return site.page("jobs-planned.html", sign_in, **await planned(sign_in, name, traits, begun, PLAN_LONGER))

    async def planned(sign_in: SignIn, name: str, traits: Traits, begun: Look, patience: float) -> dict[str, Any]:
        """What there is to do, or how much of it was counted so far."""
        given = given_of(traits)
        again = fields.link(f"/jobs/all/{name}/{begun.key}", given)
        values = await plan_values(action_of(name, sign_in), begun, patience, again=again)
        if not values.get("counts", True):
            await check_names(site.database, traits)
        button = f"{TITLES[name].removesuffix(' jobs')}: {count(values.get('good', 0), 'job')}"
        return {**values, "button": button, "act": _plan_link(name, given), "nothing": NOTHING}

    async def carry_out(request: web.Request, sign_in: SignIn) -> web.Response:
        name, traits = _planned(request, sign_in)
        return await act_on_traits(site, sign_in, name, replace(traits, snapshot=counted_in(request.query)))

    return [
        web.get("/jobs", site.signed_in(jobs)),
        web.get("/jobs/more", site.signed_in(more)),
        web.get("/jobs/all/{act}", site.signed_in(plan, operate=True)),
        web.get("/jobs/all/{act}/{look}", site.signed_in(plan_goes_on, operate=True)),
        web.post("/jobs/all/{act}", site.signed_in(carry_out, act=recorded_as)),
    ]


async def _list(site: Site, search: JobSearch, request: web.Request, sign_in: SignIn) -> web.Response:
    """The page of a filter. Raises SharddError."""
    question, given = await _read(site, request.query)
    before, after = fields.number(request.query, "before"), fields.number(request.query, "after")
    page = await search.page(question, MOST, before=before, after=after)
    if not page.jobs and page.older is None and before is None:
        await check_names(site.database, question.traits)
    # Acts have fewer filters than the list.
    by_traits = question == Question(traits=question.traits) and question.traits != Traits()
    return site.page(
        "jobs.html",
        sign_in,
        **rows_of(page, given, MOST, turn=1, listed=True),
        **CHOICES,
        given=given,
        newer=page.newer and fields.link("/jobs", {**given, "after": page.newer}),
        newest=page.newer and fields.link("/jobs", given),
        address=question.address,
        acts={name: _plan_link(name, given) for name in _acts_of(question.traits)} if by_traits else {},
        without_acts=[words for name, words in WITHOUT_ACTS.items() if given[name]],
        titles=TITLES,
        wrong="",
        error="",
    )


def _wrong(site: Site, request: web.Request, sign_in: SignIn, error: UsageError) -> web.Response:
    """The filters again, with what was typed into them."""
    return site.page(
        "jobs.html",
        sign_in,
        status=400,
        **CHOICES,
        given=fields.typed(request.query, FIELDS),
        acts={},
        without_acts=[],
        wrong=error.field if isinstance(error, fields.FieldError) else "",
        error=str(error),
    )


async def _read(site: Site, values: Mapping[str, Any]) -> tuple[Question, dict[str, str | None]]:
    """The filters, and the fields that had them. Raises SharddError."""
    traits = read_traits(values)
    group, recipient = fields.text(values, "group"), fields.text(values, "recipient")
    unreadable = bool(fields.text(values, "unreadable"))
    try:
        address = None if recipient is None else await address_of(site, recipient)
    except UsageError as error:
        raise fields.FieldError("recipient", str(error)) from None
    waits_for = fields.text(values, "waits_for")
    given = {"recipient": recipient, "group": group, **given_of(traits), "waits_for": waits_for}
    given |= {"unreadable": "1" if unreadable else None}
    question = Question(traits=traits, device_group=group, address=address, unreadable=unreadable, waits_for=waits_for)
    return question, given


def _acts_of(traits: Traits) -> list[str]:
    """What can be done with all jobs that a filter finds."""
    match traits.state:
        case None:
            return [CANCEL_NAME, RETRY_NAME, REVOKE_NAME]
        case JobState.IN_DOUBT:
            return [SENT_NAME, NOT_SENT_NAME, RETRY_NAME]
        case JobState.FAILED | JobState.CANCELLED:
            return [RETRY_NAME]
        case JobState.QUEUED | JobState.SCHEDULED:
            return [CANCEL_NAME]
        case JobState.SENT:
            return [REVOKE_NAME]
        case _:
            return []


def _plan_link(name: str, given: Mapping[str, Any]) -> str:
    return fields.link(f"/jobs/all/{name}", given)


def _planned(request: web.Request, sign_in: SignIn) -> tuple[str, Traits]:
    """Which act, and on which jobs. Raises UsageError."""
    fields.refuse_others(request.query, [*given_of(Traits()), "snapshot"])
    name, traits = fields.chosen(request.match_info, "act", TITLES), read_traits(request.query)
    if traits == Traits():
        raise UsageError("all jobs at once are too many: choose a state, a device or a campaign first")
    return name, meant_by(action_of(name, sign_in), traits)
