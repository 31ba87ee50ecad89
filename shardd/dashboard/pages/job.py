"""One job with its whole story, and what can be done about it."""

from __future__ import annotations

import json
from typing import Any, Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.job_acts import BUTTONS, act_on_jobs, acts_on, questions_of
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site
from shardd.errors import UsageError
from shardd.queue.inbox import InboxAdmin
from shardd.queue.job_admin import JobAdmin
from shardd.queue.job_story import JobStories, story_of
from shardd.queue.job_words import media_words, tries_of
from shardd.queue.records import WholeJob
from shardd.states import JobState
from shardd.words import count, moment_text

MOST_ANSWERS: Final = 20


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
        return site.page(
            "job.html",
            sign_in,
            job=found,
            facts=_facts(found),
            story=story_of(found, told.events, answers),
            whole=told.whole,
            message=_message(found),
            acts=[(name, BUTTONS[name], questions_of(name, state)) for name in acts_on(state)],
        )

    async def act(request: web.Request, sign_in: SignIn) -> web.Response:
        name = request.match_info["act"]
        if name not in BUTTONS:
            raise UsageError(f"{name[: fields.QUOTED]!r} is not an act: {', '.join(BUTTONS)}")
        shown_as = fields.choice(await request.post(), "state", JobState)
        return await act_on_jobs(site, sign_in, name, [_number(request)], shown_as)

    return [
        web.get("/jobs/{job:[0-9]+}", site.signed_in(job)),
        web.post("/jobs/{job:[0-9]+}/{act}", site.signed_in(act)),
    ]


def _number(request: web.Request) -> int:
    number = request.match_info["job"]
    if len(number) > len(str(fields.BIGGEST_ID)) or int(number) > fields.BIGGEST_ID:
        raise UsageError(f"{number[: fields.QUOTED]} is not a job: its number has at most 19 digits")
    return int(number)


def _facts(job: WholeJob) -> list[tuple[str, str]]:
    """What has no link and no moment of the story."""
    facts = [
        ("waits for", job.waits_for),
        ("due at", moment_text(job.due_at)),
        ("note" if job.state == JobState.SENT else "error", job.error),
        ("error class", job.error_class),
        ("recipient", job.recipient),
        ("class", job.job_class),
        ("order group", job.order_group),
        ("reference", job.reference),
        ("tries", f"{tries_of(job)} of {job.max_attempts}, {job.failures} failed; claimed {count(job.claims, 'time')}"),
        ("on doubt", job.on_doubt),
        ("on unreadable", job.on_unreadable),
        ("priority", str(job.priority) if job.priority else ""),
        ("expires at", moment_text(job.expires_at)),
        ("no keys of", count(job.members_without_keys, "member") if job.members_without_keys else ""),
        ("message id", job.message_id),
        ("dedupe key", job.dedupe_key),
        ("producer", job.producer),
        ("metadata", _json_text(job.metadata)),
    ]
    return [(name, value) for name, value in facts if value]


def _message(job: WholeJob) -> list[tuple[str, str]]:
    """What is sent, besides the text."""
    facts = [
        ("kind", job.kind),
        ("media", media_words(job.media)),
        ("file name", job.file_name),
        ("type", job.mime_type),
        ("details", _json_text(job.details)),
        ("variables", _json_text(job.variables)),
    ]
    return [(name, value) for name, value in facts if value]


def _json_text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
