"""Retrying, cancelling, deciding and revoking jobs on a page: as the commands do it, in their words, and within one request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from shardd.dashboard import fields
from shardd.dashboard.sign_ins import SignIn
from shardd.dashboard.site import Site, failure
from shardd.errors import DatabaseError, ErrorClass
from shardd.pacing import CLASSES
from shardd.queue.acts import BEGUN
from shardd.queue.bulk_actions import (
    CANCEL,
    OBSTACLES,
    RETRY,
    REVOKE,
    BulkAction,
    Choice,
    Seen,
    carry_out,
    done_words,
    left_words,
    look,
    resolving,
    unseen,
)
from shardd.queue.job_admin import JobAdmin, JobCount, Traits
from shardd.states import JOB_TRANSITIONS, JobState
from shardd.words import count

PATIENCE: Final = 20.0
"""Seconds in which an act ends between two chunks: a browser does not wait forever, and the button can be pressed again."""
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
_FIELDS: Final = {"state": "state", "campaign": "campaign", "class": "job_class", "error_class": "error_class"}
_PRIVATE: Final = {"order_group": "order_group", "reference": "reference"}
"""Producers may name these after a person, so the audit log does not have them."""


def action_of(name: str, sign_in: SignIn) -> BulkAction:
    """The action of a button."""
    known = {RETRY_NAME: RETRY, CANCEL_NAME: CANCEL, REVOKE_NAME: REVOKE}
    return known.get(name) or resolving(sent=name == SENT_NAME, by=sign_in.user)


def recorded_as(request: web.Request) -> str:
    """What the audit log calls the act of a path."""
    name = request.match_info["act"]
    return _recorded(name) if name in BUTTONS else request.method


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
    )


def given_of(traits: Traits) -> dict[str, str | None]:
    """The fields of a form that has these filters."""
    values = asdict(traits)
    device = next(iter(traits.device_ids or ()), None)
    return {"device": device, **{name: values[key] for name, key in {**_FIELDS, **_PRIVATE}.items()}}


def questions_of(name: str, state: JobState | None) -> str:
    """What a person is asked before one job, or those that are chosen, are handled; empty: nothing."""
    told = "what a journal or a platform reports later changes it no more"
    twice = (
        "The message may have reached the recipient; retrying may send it twice." if state == JobState.IN_DOUBT else ""
    )
    warning = {
        RETRY_NAME: twice,
        SENT_NAME: f"It will be recorded as sent on your word; {told}.",
        NOT_SENT_NAME: f"It will be recorded as not sent (failed) on your word; {told}.",
        CANCEL_NAME: "It will not be sent, unless it is retried.",
        REVOKE_NAME: "Its device asks WhatsApp to delete the message for everyone. That cannot be taken back.",
    }
    return warning[name]


def counts_of(seen: Seen) -> list[tuple[JobCount, str]]:
    """What there is to do for the table of a plan, and why it cannot be done: what can be done first."""
    ranked = sorted(seen.counts, key=lambda some: (some.obstacle is not None, -some.jobs))
    return [(some, "" if some.obstacle is None else OBSTACLES[some.obstacle]) for some in ranked]


async def act_on_jobs(
    site: Site, sign_in: SignIn, name: str, ids: Sequence[int], shown_as: JobState | None
) -> web.Response:
    """Act on named jobs, which were shown in this state. Raises SharddError."""
    action, choice = action_of(name, sign_in), Choice(list(ids), Traits())
    seen = await look(action, JobAdmin(site.database), choice, shown_as=shown_as)
    target = f"job {ids[0]}" if len(ids) == 1 else count(len(ids), "job")
    detail = ", ".join(map(str, ids)) if len(ids) > 1 else ""
    return await _carry_out(site, sign_in, name, choice, seen=seen, target=target, detail=detail)


async def act_on_traits(site: Site, sign_in: SignIn, name: str, traits: Traits) -> web.Response:
    """Act on all jobs that have these traits, which were counted on the page before. Raises SharddError."""
    choice = Choice(None, traits)
    given = given_of(traits)
    shown = [f"{key} {value}" for key, value in given.items() if value and key not in _PRIVATE]
    hidden = [f"one {key.replace('_', ' ')}" for key in _PRIVATE if given[key]]
    detail = ", ".join([*shown, *hidden])
    return await _carry_out(site, sign_in, name, choice, seen=unseen(choice), target="jobs", detail=detail)


async def is_revocable(site: Site, number: int) -> bool:
    """Whether the message of a job may be deleted for everyone. Raises DatabaseError."""
    found = await JobAdmin(site.database).count_revocations(Traits(), [number])
    return any(one.obstacle is None for one in found)


async def revoke_campaign(site: Site, sign_in: SignIn, campaign: str) -> web.Response:
    """Delete the messages of a campaign for everyone. Raises SharddError."""
    choice = Choice(None, Traits(campaign=campaign))
    seen = await look(REVOKE, JobAdmin(site.database), choice)
    return await _carry_out(site, sign_in, REVOKE_NAME, choice, seen=seen, target=f"campaign {campaign}", detail="")


async def _carry_out(
    site: Site, sign_in: SignIn, name: str, choice: Choice, *, seen: Seen, target: str, detail: str
) -> web.Response:
    action, act, ends = action_of(name, sign_in), _recorded(name), time.monotonic() + PATIENCE
    handled = 0

    def progress(jobs: int) -> None:
        nonlocal handled
        handled += jobs

    if choice.ids is None or len(choice.ids) > 1:
        await site.acted(sign_in, act, target, detail, result=BEGUN)
    try:
        report = await carry_out(
            action, JobAdmin(site.database), choice, seen, progress=progress, enough=lambda: time.monotonic() > ends
        )
    except DatabaseError as error:  # what was handled stays so
        status, words = failure(error)
        words = f"{words}; handled before: {count(handled, 'job')}"
        await site.acted(sign_in, act, target, detail, result=words)
        return site.sorry(sign_in, status, words)
    result = "; ".join([done_words(action, report), *left_words(report)])
    if report.stopped:
        result += "; there may be more: do it again"
    if report.done:
        await site.acted(sign_in, act, target, "; ".join(filter(None, (detail, result))))
    else:
        await site.acted(sign_in, act, target, detail, result=result)
    if report.done or report.already or not report.left:
        return site.done(sign_in, result)
    return site.sorry(sign_in, 409, "; ".join(left_words(report)))


def _recorded(name: str) -> str:
    return f"resolve {name.replace('-', ' ')}" if name in (SENT_NAME, NOT_SENT_NAME) else name
