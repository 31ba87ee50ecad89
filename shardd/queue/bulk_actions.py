"""Retrying, cancelling, deciding and revoking jobs in bulk: what is looked at, what is left alone and why, in words for people.

A job that a worker has in flight is left alone. An action may be repeated: a job that is already
as requested is no error. First `look`, which counts, then ask the person, then `carry_out`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from shardd.config import TRANSPORTS
from shardd.queue.job_admin import JobAdmin, JobCount, JobResult, Progress, Traits
from shardd.states import JOB_TRANSITIONS, JobState
from shardd.words import count

SHOWN: Final = 10
"""Ids that a report lists for each reason; the rest is counted."""
CANCELLED_BY_HAND: Final = "cancelled by an operator"
CAN_RETRY: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "retry" in events)
CAN_RESOLVE: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "decide_sent" in events)
CAN_REVOKE: Final = (JobState.SENT, JobState.IN_DOUBT)
CAN_CANCEL: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "cancel" in events)
_CHANGED: Final = "changed in the meantime; look again"
_REVOKING: Final = " and ".join(name for name, definition in TRANSPORTS.items() if "revoke" in definition.kinds)

OBSTACLES: Final = {
    "device": "the device was removed; bring it back with: shardd device add",
    "group": "the device group was removed; bring it back with: shardd group add",
    "campaign": "the campaign was cancelled, which is final; insert a new job into another campaign",
    "expired": "expires_at has passed, and it is never sent later; insert a new job",
    "opted_out": "the recipient opted out",
    "key": "the dedupe key belongs to another job now; insert a new job",
    "order": "a job before it in its order group will never be sent; insert a new job",
    "in_flight": "a worker has it in flight, and a message on its way cannot be stopped",
    "revocation": "it is itself a revocation, and what was deleted cannot be brought back; send it again as a new job",
    "in_doubt": "in doubt, and without the id of its message nothing can be deleted; a journal or a report may still tell it",
    "no_id": "the id of its message is not known: a person decided that it was sent, or its recipient was forgotten",
    "transport": f"its device cannot revoke messages; only those of the transports {_REVOKING} can",
    "account": "its device has another account now; only the account that sent a message can delete it",
    "revoked": "it is revoked already",
}
"""Completes `job ID: …`, by the words of `shardd.retries`, `shardd.revocable` and `count_cancels`."""
_NO_RETRY: Final = {
    JobState.SENT: "sent already, and a sent message stays sent; insert a new job to send it again",
    JobState.EXPIRED: OBSTACLES["expired"],
    JobState.OPTED_OUT: OBSTACLES["opted_out"],
}
_NO_CANCEL: Final = {
    JobState.SENDING: OBSTACLES["in_flight"],
    JobState.SENT: "sent already",
    JobState.FAILED: "ended already: failed",
    JobState.IN_DOUBT: "ended already: in doubt; if you know what became of it: shardd job resolve",
    JobState.EXPIRED: "ended already: expired",
    JobState.OPTED_OUT: "ended already: the recipient opted out",
}
_NO_REVOKE: Final = {
    JobState.QUEUED: "it was not sent; cancel it instead: shardd job cancel",
    JobState.SCHEDULED: "it was not sent; cancel it instead: shardd job cancel",
    JobState.SENDING: "it is being sent; revoke it once it is sent",
    **{
        state: f"there is nothing to delete: {state.replace('_', ' ')}"
        for state in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.OPTED_OUT)
    },
}
_NO_RESOLVE: Final = {
    state: f"not in doubt, but {state.replace('_', ' ')}" for state in JobState if state not in CAN_RESOLVE
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs; `ids` None: all that have the traits."""

    ids: list[int] | None
    traits: Traits


@dataclass(slots=True)
class Report:
    """How many jobs a command changed, and how many it left alone for which reason, with the first ids."""

    done: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)
    already: int = 0
    """Named jobs that were already as requested."""
    stopped: bool = False
    """It was enough: there may be more."""

    def leave(self, why: str, number: int) -> None:
        """Count the job `number`, which was left alone."""
        self.left[why] += 1
        shown = self.examples.setdefault(why, [])
        if len(shown) < SHOWN:
            shown.append(number)


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was to do when the operator was asked: counts, and the choices that they are of."""

    counts: list[JobCount]
    choices: list[Choice]
    others: Mapping[str, int]
    """Where there is nothing to do: jobs that the options describe in other states, which were not asked for."""

    @property
    def good(self) -> list[JobCount]:
        """Those without an obstacle."""
        return [some for some in self.counts if some.obstacle is None]


@dataclass(frozen=True, slots=True)
class BulkAction:
    """All that the commands differ in."""

    verb: str
    past: str
    count: Callable[[JobAdmin, Traits, Sequence[int] | None, Progress], Awaitable[list[JobCount]]]
    handle: Callable[[JobAdmin, Traits, Sequence[int] | None], AsyncIterator[list[JobResult]]]
    refusals: Mapping[JobState, str]
    """Why named jobs in these states are not looked at."""
    wanted: frozenset[JobState]
    """Named jobs in these states are already as requested."""
    usual_state: JobState | None = None
    """Of the jobs that are meant when traits name none; None: any."""
    warning: str = ""
    """Completes `warning: 2 jobs in doubt …`."""
    done_before: frozenset[str] = frozenset()
    """Obstacles of jobs that are already as requested."""
    decision: str = ""
    """What a person decided about the jobs, for the audit log."""
    only_as_seen: frozenset[JobState] = frozenset()
    """Of these states, only jobs that were in the same state when the operator was asked: one that is in doubt by now would
    have been another question."""


RETRY: Final = BulkAction(
    verb="retry",
    past="retried",
    count=JobAdmin.count_retries,
    handle=JobAdmin.retry,
    refusals=_NO_RETRY,
    wanted=frozenset({JobState.QUEUED, JobState.SCHEDULED, JobState.SENDING}),
    usual_state=JobState.FAILED,
    warning="may have reached the recipient; retrying may send the message twice",
    only_as_seen=frozenset(CAN_RETRY),
)
CANCEL: Final = BulkAction(
    verb="cancel",
    past="cancelled",
    count=JobAdmin.count_cancels,
    handle=lambda jobs, traits, ids: jobs.cancel(traits, CANCELLED_BY_HAND, ids),
    refusals=_NO_CANCEL,
    wanted=frozenset({JobState.CANCELLED}),
)
REVOKE: Final = BulkAction(
    verb="revoke",
    past="revoking",
    count=JobAdmin.count_revocations,
    handle=JobAdmin.revoke,
    refusals=_NO_REVOKE,
    wanted=frozenset(),
    done_before=frozenset({"revoked"}),
    warning="may not have been sent; then there is nothing to delete",
)


def resolving(*, sent: bool, by: str) -> BulkAction:
    """The decision of a person: `by`."""
    result = "as sent" if sent else "as not sent (failed)"
    return BulkAction(
        verb="resolve",
        past="resolved",
        count=JobAdmin.count_decisions,
        handle=lambda jobs, traits, ids: jobs.decide(traits, ids, sent=sent, by=by),
        refusals=_NO_RESOLVE,
        wanted=frozenset({JobState.SENT if sent else JobState.FAILED}),
        decision="sent" if sent else "not sent",
        usual_state=JobState.IN_DOUBT,
        warning=f"will be recorded {result}, as you decide; what a journal or a platform reports later will not change that",
    )


def meant_by(action: BulkAction, traits: Traits) -> Traits:
    """With the usual state, if they name none."""
    return traits if traits.state is not None else replace(traits, state=action.usual_state)


async def look(
    action: BulkAction,
    jobs: JobAdmin,
    choice: Choice,
    any_state: Traits | None = None,
    *,
    shown_as: JobState | None = None,
    progress: Progress = lambda _: None,
) -> Seen:
    """What there is to do. Raises DatabaseError.

    Jobs are meant as they are now: `carry_out` leaves alone those that come, or end once more, later.
    `any_state`: what was asked for, if the state in `choice` was added to it.
    `shown_as`: the state in which named jobs were shown to the person who chose them; those in another one are left alone.
    `progress` is told what was counted so far of jobs that are not named.
    """
    choice = Choice(choice.ids, replace(choice.traits, snapshot=await jobs.snapshot()))
    choices = [choice] if choice.ids is None else await _by_state(action, jobs, choice.ids, choice.traits)
    if shown_as is not None and action.only_as_seen:
        choices = [part for part in choices if part.traits.state == shown_as]
    counts = [some for part in choices for some in await action.count(jobs, part.traits, part.ids, progress)]
    others: Counter[str] = Counter()
    if not counts and any_state is not None:
        for some in await action.count(jobs, any_state, None, lambda _: None):
            others[some.state] += some.jobs
    return Seen(counts, choices, others)


async def carry_out(
    action: BulkAction,
    jobs: JobAdmin,
    choice: Choice,
    seen: Seen,
    *,
    progress: Callable[[int], None] = lambda _: None,
    enough: Callable[[], bool] = lambda: False,
) -> Report:
    """Do it; `progress` is told of each chunk how many jobs it had. Raises DatabaseError; finished chunks stay done.

    `enough`: whether to stop after a chunk; the report says that there may be more. `seen` may be `unseen`.
    """
    if seen.counts and not seen.good and not choice.ids:
        report = Report()
        for some in seen.counts:
            if some.obstacle in action.done_before:
                report.already += some.jobs
            else:
                report.left[OBSTACLES[str(some.obstacle)]] += some.jobs
        return report
    return await _handle_all(action, jobs, choice, seen, progress=progress, enough=enough)


def unseen(choice: Choice) -> Seen:
    """What there is to do, of jobs that a person saw counted before, and that need not be counted again."""
    return Seen([], [choice], {})


def warning_of(action: BulkAction, seen: Seen) -> str:
    """What a person must know before the yes; empty: nothing."""
    doubts = sum(some.jobs for some in seen.good if some.state == JobState.IN_DOUBT)
    return f"{count(doubts, 'job')} in doubt {action.warning}" if doubts else ""


def question_of(action: BulkAction, seen: Seen) -> str:
    """What a person is asked, such as `Retry 2 failed jobs and 1 job in doubt?`."""
    by_state: Counter[str] = Counter()
    for some in seen.good:
        by_state[some.state] += some.jobs
    doubts = by_state.pop(JobState.IN_DOUBT, 0)
    groups = [count(number, f"{state.replace('_', ' ')} job") for state, number in sorted(by_state.items()) if number]
    groups += [f"{count(doubts, 'job')} in doubt"] if doubts else []
    return f"{action.verb.title()} {' and '.join(groups)}?"


def done_words(action: BulkAction, report: Report) -> str:
    """What was done, such as `retried 2 jobs; 1 job was already done`."""
    already = f"; {count(report.already, 'job')} {'was' if report.already == 1 else 'were'} already done"
    return f"{action.past} {count(report.done, 'job')}{already if report.already else ''}"


def left_words(report: Report) -> list[str]:
    """Why jobs were left alone, such as `2 jobs (4, 5): the recipient opted out`."""
    lines = []
    for why, number in report.left.items():
        shown = report.examples.get(why, [])
        more = f" and {number - len(shown):,} more" if number > len(shown) and shown else ""
        ids = f" ({', '.join(map(str, shown))}{more})" if shown else ""
        lines.append(f"{count(number, 'job')}{ids}: {why}")
    return lines


async def _by_state(action: BulkAction, jobs: JobAdmin, ids: list[int], traits: Traits) -> list[Choice]:
    """Named jobs by the state that they are in."""
    if not action.only_as_seen:
        return [Choice(ids, traits)]
    found: dict[JobState, list[int]] = {}
    for number, state in (await jobs.states(ids)).items():
        if state in action.only_as_seen and traits.state in {None, state}:
            found.setdefault(state, []).append(number)
    return [Choice(sorted(numbers), replace(traits, state=state)) for state, numbers in found.items()]


async def _handle_all(
    action: BulkAction,
    jobs: JobAdmin,
    choice: Choice,
    seen: Seen,
    *,
    progress: Callable[[int], None],
    enough: Callable[[], bool],
) -> Report:
    report = Report()
    explained: set[int] = set()
    for part in seen.choices:
        async for handled in action.handle(jobs, part.traits, part.ids):
            for one in handled:
                if one.done:
                    report.done += 1
                elif one.obstacle in action.done_before:
                    report.already += 1
                else:
                    report.leave(_why(one), one.id)
            if choice.ids is not None:
                explained.update(one.id for one in handled)
            progress(len(handled))
            if enough():
                report.stopped = True
                return report
    await _explain(action, jobs, choice, report, [number for number in choice.ids or () if number not in explained])
    return report


async def _explain(action: BulkAction, jobs: JobAdmin, choice: Choice, report: Report, ids: list[int]) -> None:
    """Why named jobs were not looked at, or changed in that moment."""
    states = await jobs.states(ids)
    only_ids = replace(choice.traits, as_of=None, snapshot=None) == Traits()
    for number in ids:
        state = states.get(number)
        if state is None:
            report.leave("unknown", number)
        elif not only_ids:
            report.leave("does not match the options", number)
        elif state in action.wanted:
            report.already += 1
        else:
            report.leave(action.refusals.get(state, _CHANGED), number)


def _why(one: JobResult) -> str:
    if one.refusal is not None:
        return f"the database refuses it as it is: {one.refusal}; insert a new job"
    return _CHANGED if one.obstacle is None else OBSTACLES[one.obstacle]
