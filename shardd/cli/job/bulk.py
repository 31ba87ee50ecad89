"""`shardd job retry` and `shardd job cancel`: what a person decides about one message or a million.

A job that a worker has in flight belongs to that worker, and a sent message stays sent. Both commands may be repeated: what is as
it was asked to be is no error.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click

from shardd.cli.database import with_database
from shardd.cli.job.choice import Choice, check_names, read_choice, trait_options
from shardd.cli.job.view import count_json, show_counts
from shardd.cli.names import SHOWN, Refusals, confirm
from shardd.cli.options import database_config_option
from shardd.cli.output import count, print_json, say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.jobs import JobAdmin, JobCount, JobResult, Traits
from shardd.states import JOB_TRANSITIONS, JobState

CANCELLED_BY_HAND: Final = "cancelled by an operator"

_CAN_RETRY: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "retry" in events)
_CAN_CANCEL: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "cancel" in events)
_CHANGED: Final = "changed in the meantime; look again"

_OBSTACLES: Final = {
    "device": "the device was removed; bring it back with: shardd device add",
    "group": "the device group was removed; bring it back with: shardd group add",
    "campaign": "the campaign was cancelled, which is for good; insert a new job into another campaign",
    "expired": "expires_at has passed, and it is never sent later; insert a new job",
    "opted_out": "the recipient opted out",
    "key": "the dedupe key belongs to another job now; insert a new job",
    "order": "a job before it in its order group will never be sent; insert a new job",
    "in_flight": "a worker has it in flight, and a message on its way cannot be stopped",
}
"""The rest of a sentence that begins with a job, by the words of `shardd.retries` and `count_cancels`."""
_NO_RETRY: Final = {
    JobState.SENT: "sent already, and a sent message stays sent; insert a new job to send it again",
    JobState.EXPIRED: _OBSTACLES["expired"],
    JobState.OPTED_OUT: _OBSTACLES["opted_out"],
}
_NO_CANCEL: Final = {
    JobState.SENDING: _OBSTACLES["in_flight"],
    JobState.SENT: "sent already",
    JobState.FAILED: "ended already: failed",
    JobState.IN_DOUBT: "ended already: in doubt",
    JobState.EXPIRED: "ended already: expired",
    JobState.OPTED_OUT: "ended already: the recipient opted out",
}

_dry_run = click.option("--dry-run", is_flag=True, help="Only count what would be done.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_as_json = click.option("--json", "as_json", is_flag=True, help="For programs: an object with counts and refusals.")
_ids = click.argument("ids", nargs=-1, metavar="[ID]...")


def _why(one: JobResult) -> str:
    if one.refusal is not None:
        return f"the database refuses it as it is: {one.refusal}; insert a new job"
    return _CHANGED if one.obstacle is None else _OBSTACLES[one.obstacle]


@dataclass(slots=True)
class Report:
    """What a command did: how many jobs, and how many it left alone for which reason, with the first ids."""

    done: int = 0
    left: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[int]] = field(default_factory=dict)
    already: int = 0
    """Named jobs that were as they were asked to be."""

    def note(self, one: JobResult) -> None:
        """Count one that was looked at."""
        if one.done:
            self.done += 1
        else:
            self.leave(_why(one), one.id)

    def leave(self, why: str, number: int) -> None:
        """Count the job `number`, which was left alone."""
        self.left[why] = self.left.get(why, 0) + 1
        shown = self.examples.setdefault(why, [])
        if len(shown) < SHOWN:
            shown.append(number)


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was to do when the person was asked: counts, and the same as choices."""

    counts: list[JobCount]
    choices: list[Choice]


@dataclass(frozen=True, slots=True)
class BulkAction:
    """What one command does; the two commands differ in nothing else."""

    verb: str
    past: str
    count: Callable[[JobAdmin, Traits, Sequence[int] | None], Awaitable[list[JobCount]]]
    handle: Callable[[JobAdmin, Traits, Sequence[int] | None], AsyncIterator[list[JobResult]]]
    refusals: Mapping[JobState, str]
    """Of named jobs that it did not look at."""
    wanted: frozenset[JobState]
    """Named jobs in these states are as they were asked to be."""
    only_as_seen: frozenset[JobState] = frozenset()
    """Of these states, only jobs that were in the same state when the person was asked: one that came to be in doubt since then
    is another question."""


_RETRY: Final = BulkAction(
    verb="retry",
    past="retried",
    count=JobAdmin.count_retries,
    handle=JobAdmin.retry,
    refusals=_NO_RETRY,
    wanted=frozenset({JobState.QUEUED, JobState.SCHEDULED, JobState.SENDING}),
    only_as_seen=frozenset(_CAN_RETRY),
)
_CANCEL: Final = BulkAction(
    verb="cancel",
    past="cancelled",
    count=JobAdmin.count_cancels,
    handle=lambda jobs, traits, ids: jobs.cancel(traits, CANCELLED_BY_HAND, ids),
    refusals=_NO_CANCEL,
    wanted=frozenset({JobState.CANCELLED}),
)


@click.command("retry")
@_ids
@trait_options(_CAN_RETRY)
@_dry_run
@_yes
@_as_json
@database_config_option
def retry(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Bring failed, cancelled or in-doubt jobs back into the queue, with all their attempts anew.

    Without ids, those that the options describe, and of these the failed ones unless --state names another state; all failed
    ones: --state failed. A job in doubt may have been sent: retrying it may send it twice, so that is asked first.
    """
    choice = read_choice(ids, options)
    if choice.ids is None and choice.traits.state is None:
        choice = read_choice(ids, {**options, "state": JobState.FAILED})
    _carry_out(_RETRY, choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


@click.command("cancel")
@_ids
@trait_options(_CAN_CANCEL)
@_dry_run
@_yes
@_as_json
@database_config_option
def cancel(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Cancel jobs that wait. What a worker has in flight cannot be stopped. `job retry` brings cancelled jobs back."""
    choice = read_choice(ids, options)
    _carry_out(_CANCEL, choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


def _carry_out(action: BulkAction, choice: Choice, *, dry_run: bool, yes: bool, as_json: bool, config: Config) -> None:

    async def weigh(database: Database) -> Seen:
        jobs = JobAdmin(database)
        choices = [choice] if choice.ids is None else await _by_state(action, jobs, choice.ids, choice.traits)
        counts = [count for part in choices for count in await action.count(jobs, part.traits, part.ids)]
        if not counts:
            await check_names(database, choice.traits)
        return Seen(counts, choices)

    async def carry_out(database: Database) -> Report:
        return await _handle_all(action, JobAdmin(database), choice, seen)

    # Between the two steps a person may think; no connection is held for that long.
    seen = with_database(config, weigh)
    if dry_run:
        _show_plan(action, seen.counts, as_json=as_json)
        return
    good = [count for count in seen.counts if count.obstacle is None]
    _ask(action, good, by_traits=choice.ids is None, yes=yes)
    report = with_database(config, carry_out) if good or choice.ids else _all_left(seen.counts)
    _tell(action, report, by_traits=choice.ids is None, as_json=as_json)


async def _by_state(action: BulkAction, jobs: JobAdmin, ids: list[int], traits: Traits) -> list[Choice]:
    """Named jobs by the state that they are in."""
    if not action.only_as_seen:
        return [Choice(ids, traits)]
    found: dict[JobState, list[int]] = {}
    for number, state in (await jobs.states(ids)).items():
        if state in action.only_as_seen and traits.state in {None, state}:
            found.setdefault(state, []).append(number)
    return [Choice(sorted(numbers), replace(traits, state=state)) for state, numbers in found.items()]


async def _handle_all(action: BulkAction, jobs: JobAdmin, choice: Choice, seen: Seen) -> Report:
    report = Report()
    expected = sum(count.jobs for count in seen.counts)
    explained: set[int] = set()
    # Hidden where nobody watches; the numbers are on stdout in any case.
    with click.progressbar(
        length=expected, label=action.past, file=sys.stderr, hidden=not sys.stderr.isatty() or expected < 10_000
    ) as bar:
        for part in seen.choices:
            async for handled in action.handle(jobs, part.traits, part.ids):
                for one in handled:
                    report.note(one)
                if choice.ids is not None:
                    explained.update(one.id for one in handled)
                bar.update(len(handled))
    if choice.ids is not None:
        await _explain_rest(action, jobs, [number for number in choice.ids if number not in explained], choice, report)
    return report


def _all_left(counts: list[JobCount]) -> Report:
    """Nothing can be done about any of them: no need to look at each."""
    report = Report()
    for some in counts:
        why = _OBSTACLES[str(some.obstacle)]
        report.left[why] = report.left.get(why, 0) + some.jobs
    return report


async def _explain_rest(action: BulkAction, jobs: JobAdmin, ids: list[int], choice: Choice, report: Report) -> None:
    """Why named jobs were not looked at, or changed in that moment."""
    states = await jobs.states(ids)
    only_ids = choice.traits == Traits()
    for number in ids:
        state = states.get(number)
        if state is None:
            report.leave("unknown", number)
        elif not only_ids:
            report.leave("not among those asked for", number)
        elif state in action.wanted:
            report.already += 1
        else:
            report.leave(action.refusals.get(state, _CHANGED), number)


def _ask(action: BulkAction, counts: list[JobCount], *, by_traits: bool, yes: bool) -> None:
    if not counts:
        return
    doubts = sum(some.jobs for some in counts if some.state == JobState.IN_DOUBT)
    if doubts:
        their, they = ("its", "it") if doubts == 1 else ("their", "they")
        say(
            f"warning: nobody knows whether {count(doubts, 'job')} in doubt reached {their} recipient: retried, {they} may be "
            "sent a second time",
            err=True,
        )
    if doubts or by_traits:
        by_state: dict[str, int] = {}
        for some in counts:
            by_state[some.state] = by_state.get(some.state, 0) + some.jobs
        what = " and ".join(f"{number:,} {state}" for state, number in sorted(by_state.items()))
        confirm(f"{action.verb.title()} {what} {'job' if sum(by_state.values()) == 1 else 'jobs'}?", yes=yes)


def _show_plan(action: BulkAction, counts: list[JobCount], *, as_json: bool) -> None:
    good = sum(count.jobs for count in counts if count.obstacle is None)
    if as_json:
        print_json({"dry_run": True, action.past: good, "counts": [count_json(count) for count in counts]})
        return
    if counts:
        show_counts(counts, _OBSTACLES)
    say(f"would {action.verb} {count(good, 'job')}; nothing was changed")


def _tell(action: BulkAction, report: Report, *, by_traits: bool, as_json: bool) -> None:
    if as_json:
        left = [
            {"why": why, "jobs": number, "ids": report.examples.get(why, [])} for why, number in report.left.items()
        ]
        print_json({"dry_run": False, action.past: report.done, "already": report.already, "left": left})
        raise click.exceptions.Exit(UsageError.exit_code if left else 0)
    if report.done or report.already or by_traits:
        already = f"; {count(report.already, 'job')} {'was' if report.already == 1 else 'were'} that already"
        say(f"{action.past} {count(report.done, 'job')}{already if report.already else ''}")
    refusals = Refusals()
    for why, number in report.left.items():
        refusals.tell(report.examples.get(why, []), "job", why, number=number)
    refusals.finish()
