"""Retrying, cancelling, deciding and revoking jobs on a page: as the commands do it, in their words, and within one request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, Final

from aiohttp import web

from shardd.config.transports.definition import KINDS
from shardd.dashboard import fields
from shardd.dashboard.looks import Look
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, failure
from shardd.errors import ErrorClass, UsageError
from shardd.pacing import CLASSES
from shardd.queue.act_log import Actor
from shardd.queue.acts import joined
from shardd.queue.bulk_actions import (
    CANCEL,
    OBSTACLES,
    RETRY,
    REVOKE,
    BulkAction,
    Choice,
    Report,
    Seen,
    carry_out,
    left_words,
    look,
    question_of,
    resolving,
    unseen,
    warning_of,
)
from shardd.queue.job_admin import JobAdmin, JobCount, Traits
from shardd.queue.recorded_jobs import (
    BrokenOffError,
    ManyJobs,
    carry_out_on_many,
    jobs_of,
    jobs_with,
    named_jobs,
    report_words,
)
from shardd.states import JOB_TRANSITIONS, JobState
from shardd.words import sentences

PATIENCE: Final = 20.0
"""Seconds in which an act ends between two chunks: a browser does not wait forever, and the button can be pressed again."""
PLAN_PATIENCE: Final = 0.05
"""Seconds for which a page waits for the numbers of what an act would do; then it shows how far the count is, and asks again."""
PLAN_LONGER: Final = 1.0
"""Seconds for which it waits when it asks again."""
RETRY_NAME, CANCEL_NAME, SENT_NAME, NOT_SENT_NAME, REVOKE_NAME = "retry", "cancel", "sent", "not-sent", "revoke"
BUTTONS: Final = {
    RETRY_NAME: "Retry",
    CANCEL_NAME: "Cancel",
    SENT_NAME: "It was sent",
    NOT_SENT_NAME: "It was not sent",
    REVOKE_NAME: "Revoke",
}
"""The words of each act's button, for one job."""
LONGEST_TRAIT: Final = 1000
_NOT_SEEN: Final = "is missing: look at the jobs that are meant, and press the button there"
_FIELDS: Final = {
    "state": "state",
    "campaign": "campaign",
    "class": "job_class",
    "error_class": "error_class",
    "order_group": "order_group",
    "reference": "reference",
    "kind": "kind",
    "revokes_campaign": "revokes_campaign",
}
"""The fields of a form, and the traits that they are."""


def action_of(name: str, sign_in: SignIn) -> BulkAction:
    """The action of a button."""
    known = {RETRY_NAME: RETRY, CANCEL_NAME: CANCEL, REVOKE_NAME: REVOKE}
    return known.get(name) or resolving(sent=name == SENT_NAME, by=sign_in.user)


def recorded_as(request: web.Request) -> str:
    """What the audit log calls the act of a path."""
    name = request.match_info["act"]
    if name not in BUTTONS:
        return request.method
    return "resolve" if name in (SENT_NAME, NOT_SENT_NAME) else name


def acts_on(state: JobState) -> list[str]:
    """What can be done about a job because it is in this state."""
    events = JOB_TRANSITIONS[state]
    decide = [SENT_NAME, NOT_SENT_NAME] if "decide_sent" in events else []
    return [
        *decide,
        *([RETRY_NAME] if "retry" in events else []),
        *([CANCEL_NAME] if "cancel" in events else []),
    ]


def read_traits(values: Mapping[str, Any]) -> Traits:
    """The filters of a form that acts can have. Raises UsageError."""
    device = fields.text(values, "device")
    return Traits(
        state=fields.choice(values, "state", JobState),
        device_ids=None if device is None else [device],
        campaign=fields.text(values, "campaign"),
        job_class=fields.choice(values, "class", CLASSES),
        error_class=fields.choice(values, "error_class", ErrorClass),
        order_group=fields.text(values, "order_group", longest=LONGEST_TRAIT),
        reference=fields.text(values, "reference", longest=LONGEST_TRAIT),
        kind=fields.choice(values, "kind", KINDS),
        revokes_campaign=fields.text(values, "revokes_campaign"),
    )


def given_of(traits: Traits) -> dict[str, str | None]:
    """The fields of a form that has these filters."""
    values = asdict(traits)
    device = next(iter(traits.device_ids or ()), None)
    return {"device": device, **{name: values[key] for name, key in _FIELDS.items()}}


def questions_of(name: str, state: JobState | None) -> str:
    """What a person is asked before one job, or those that are chosen, are handled; empty: nothing."""
    told = "What a journal or a platform reports later will not change that."
    twice = (
        "The message may have reached the recipient; retrying may send it twice." if state == JobState.IN_DOUBT else ""
    )
    warning = {
        RETRY_NAME: twice,
        SENT_NAME: f"It will be recorded as sent, as you decide. {told}",
        NOT_SENT_NAME: f"It will be recorded as not sent (failed), as you decide. {told}",
        CANCEL_NAME: "It will not be sent, unless it is retried.",
        REVOKE_NAME: "Its device asks WhatsApp to delete the message for everyone. That cannot be taken back.",
    }
    return warning[name]


def counts_of(seen: Seen) -> list[tuple[JobCount, str]]:
    """What there is to do for the table of a plan, and why it cannot be done: what can be done first."""
    ranked = sorted(seen.counts, key=lambda some: (some.obstacle is not None, -some.jobs))
    return [(some, "" if some.obstacle is None else OBSTACLES[some.obstacle]) for some in ranked]


async def plan_values(action: BulkAction, begun: Look, patience: float, *, again: str) -> dict[str, Any]:
    """What `jobs-planned.html` shows of a count; `again`: where it goes on if it takes longer. Raises SharddError."""
    seen = await begun.wait(patience)
    if seen is None:
        return {"so_far": begun.jobs, "again": again}
    return {
        "so_far": None,
        "counts": counts_of(seen),
        "good": sum(some.jobs for some in seen.good),
        "snapshot": next((part.traits.snapshot for part in seen.choices), None),
        "question": " ".join(filter(None, (question_of(action, seen), warning_of(action, seen)))),
        "warning": warning_of(action, seen),
    }


async def act_on_jobs(
    site: Site, sign_in: SignIn, name: str, ids: Sequence[int], *, shown_as: JobState | None, as_of: datetime | None
) -> web.Response:
    """Act on named jobs, which were shown in this state, as it was at a time. Raises SharddError.

    One that has ended once more since then is left alone: what a person knew was about the attempt before.
    """
    action, choice = action_of(name, sign_in), Choice(list(ids), Traits(as_of=as_of))
    if len(ids) > 1:
        seen = await look(action, JobAdmin(site.database), choice, shown_as=shown_as)
        return await _act_on_many(site, sign_in, action, named_jobs(ids, choice, seen))
    async with site.acting(sign_in, f"job {ids[0]}", action.decision) as acting:
        jobs = JobAdmin(acting.database)
        report = await carry_out(action, jobs, choice, await look(action, jobs, choice, shown_as=shown_as))
        words = report_words(action, report)
        if report.done:
            acting.detail = joined(action.decision, words)
        else:
            acting.result = words
    return _answer(site, sign_in, action, report)


def shown_at(values: Mapping[str, Any]) -> datetime:
    """When the jobs were shown of which a person says what to do: what they became later was not meant. Raises UsageError."""
    found = fields.moment(values, "as_of")
    if found is None:
        raise UsageError(f"as_of {_NOT_SEEN}")
    return found


def counted_in(values: Mapping[str, Any]) -> str:
    """The snapshot in which jobs were counted: those that came later were not meant. Raises UsageError."""
    found = fields.snapshot(values, "snapshot")
    if found is None:
        raise UsageError(f"snapshot {_NOT_SEEN}")
    return found


async def act_on_traits(site: Site, sign_in: SignIn, name: str, traits: Traits) -> web.Response:
    """Act on all jobs that have these traits, which were counted on the page before. Raises SharddError."""
    choice = Choice(None, traits)
    return await _act_on_many(site, sign_in, action_of(name, sign_in), jobs_with(choice, unseen(choice)))


async def is_revocable(site: Site, number: int) -> bool:
    """Whether the message of a job may be deleted for everyone. Raises DatabaseError."""
    found = await JobAdmin(site.database).count_revocations(Traits(), [number])
    return any(one.obstacle is None for one in found)


async def why_no_retry(site: Site, number: int) -> str | None:
    """What keeps a finished job from being retried; None: nothing. Raises DatabaseError."""
    found = await JobAdmin(site.database).count_retries(Traits(), [number])
    return next((OBSTACLES[one.obstacle] for one in found if one.obstacle is not None), None)


async def revoke_campaign(site: Site, sign_in: SignIn, campaign: str, snapshot: str) -> web.Response:
    """Delete the messages of a campaign for everyone that an operator saw counted. Raises SharddError."""
    return await _act_on_many(site, sign_in, REVOKE, jobs_of(campaign, snapshot))


async def act_on_many(site: Site, actor: Actor, action: BulkAction, many: ManyJobs) -> Report:
    """Act chunk by chunk, within `PATIENCE`. Raises BrokenOffError, which is recorded, and DatabaseError: nothing was done."""
    ends = time.monotonic() + PATIENCE
    return await carry_out_on_many(
        partial(site.under_way, actor),
        action,
        JobAdmin(site.database),
        many,
        enough=lambda: time.monotonic() > ends,
        words_of=lambda error: failure(error)[1],
    )


async def _act_on_many(site: Site, sign_in: SignIn, action: BulkAction, many: ManyJobs) -> web.Response:
    try:
        report = await act_on_many(site, sign_in, action, many)
    except BrokenOffError as error:
        return site.sorry(sign_in, failure(error.why)[0], sentences(str(error)))
    return _answer(site, sign_in, action, report)


def _answer(site: Site, sign_in: SignIn, action: BulkAction, report: Report) -> web.Response:
    if report.done or report.already or not report.left:
        return site.done(sign_in, report_words(action, report))
    return site.sorry(sign_in, 409, "; ".join(left_words(report)))
