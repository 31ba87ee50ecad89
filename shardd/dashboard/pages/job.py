"""One job with its whole story, and what can be done about it."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.job_acts import (
    BUTTONS,
    RETRY_NAME,
    REVOKE_NAME,
    act_on_jobs,
    acts_on,
    is_revocable,
    questions_of,
    recorded_as,
    why_no_retry,
)
from shardd.dashboard.job_rows import what_it_waits_for
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.queue.device_search import DeviceSearch
from shardd.queue.inbox import InboxAdmin
from shardd.queue.job_admin import JobAdmin
from shardd.queue.job_story import JobStories, story_of
from shardd.queue.job_words import handling_facts, media_words, origin_facts
from shardd.queue.records import WholeJob
from shardd.states import JobState
from shardd.words import Facts, json_text, moment_text

MOST_ANSWERS: Final = 20
WAITING: Final = (JobState.QUEUED, JobState.SCHEDULED)


def routes(site: Site) -> list[web.RouteDef]:
    """See the module."""

    async def job(request: web.Request, sign_in: SignIn) -> web.Response:
        number = _number(request)
        found = await JobAdmin(site.database).show(number)
        if found is None:
            return site.sorry(sign_in, 404, f"job {number} is unknown")
        state = JobState(found.state)
        told = await JobStories(site.database).events_of(found)
        answers = await InboxAdmin(site.database).newest(MOST_ANSWERS, job_id=number)
        acts = acts_on(state) + ([REVOKE_NAME] if await is_revocable(site, number) else [])
        no_retry = await why_no_retry(site, number) if RETRY_NAME in acts else None
        stopped = state in WAITING and await JobAdmin(site.database).is_opted_out(number)
        return site.page(
            "job.html",
            sign_in,
            job=found,
            facts=_facts(found, no_retry, stopped=stopped),
            waits_for=what_it_waits_for(found),
            story=story_of(found, told.events, answers),
            whole=told.whole,
            message=_message(found),
            group_label=found.device_group and await DeviceSearch(site.database).group_label(found.device_group),
            acts=[
                (name, BUTTONS[name], questions_of(name, state))
                for name in acts
                if name != RETRY_NAME or no_retry is None
            ],
        )

    async def act(request: web.Request, sign_in: SignIn) -> web.Response:
        name = fields.chosen(request.match_info, "act", BUTTONS)
        form = await fields.form(request)
        shown_as, as_of = fields.choice(form, "state", JobState), fields.moment(form, "as_of")
        return await act_on_jobs(site, sign_in, name, [_number(request)], shown_as=shown_as, as_of=as_of)

    return [
        web.get("/jobs/{job:[0-9]+}", site.signed_in(job)),
        web.post("/jobs/{job:[0-9]+}/{act}", site.signed_in(act, act=recorded_as)),
    ]


def _number(request: web.Request) -> int:
    number = fields.number(request.match_info, "job")
    assert number is not None  # the route wants a digit
    return number


def _facts(job: WholeJob, no_retry: str | None, *, stopped: bool) -> Facts:
    """What has no link and no moment of the story. `no_retry`: why it cannot be retried; `stopped`: by an opt-out."""
    facts: Facts = [
        ("opt-out", "the recipient has opted out: it will not be sent, and ends as opted out" if stopped else None),
        ("waits for", what_it_waits_for(job)),
        ("no retry", no_retry),
        ("due at", moment_text(job.due_at)),
        ("note" if job.state == JobState.SENT else "error", job.error),
        ("error class", job.error_class),
        ("recipient", job.recipient),
        ("class", job.job_class),
        *handling_facts(job),
        ("expires at", moment_text(job.expires_at)),
        *origin_facts(job),
        ("metadata", json_text(job.metadata)),
    ]
    return [(name, value) for name, value in facts if value]


def _message(job: WholeJob) -> Facts:
    """What is sent, besides the text."""
    facts: Facts = [
        ("kind", job.kind),
        ("media", media_words(job.media)),
        ("file name", job.file_name),
        ("type", job.mime_type),
        ("details", json_text(job.details)),
        ("variables", json_text(job.variables)),
    ]
    return [(name, value) for name, value in facts if value]
