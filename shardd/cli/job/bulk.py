"""`shardd job retry`, `cancel` and `resolve`: one job or a million.

A job that a worker has in flight is left alone, and a sent message stays sent. The commands may be repeated: a job that is
already as requested is no error.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click

from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.job.choice import Choice, check_names, read_choice, trait_options
from shardd.cli.listing import Column, table_of
from shardd.cli.names import SHOWN, Refusals, confirm, login_name
from shardd.cli.options import Decorator, all_of, database_config_option, json_option, yes_option
from shardd.cli.output import make_console, number_text, print_json, say, state_text
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, JobCount, JobResult, Traits
from shardd.states import JOB_TRANSITIONS, JobState
from shardd.words import count

CANCELLED_BY_HAND: Final = "cancelled by an operator"
PROGRESS_FROM: Final = 10_000
"""Jobs from which on a terminal shows a progress bar."""

_CAN_RETRY: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "retry" in events)
_CAN_RESOLVE: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "decide_sent" in events)
_CAN_CANCEL: Final = tuple(state for state, events in JOB_TRANSITIONS.items() if "cancel" in events)
_CHANGED: Final = "changed in the meantime; look again"

_OBSTACLES: Final = {
    "device": "the device was removed; bring it back with: shardd device add",
    "group": "the device group was removed; bring it back with: shardd group add",
    "campaign": "the campaign was cancelled, which is final; insert a new job into another campaign",
    "expired": "expires_at has passed, and it is never sent later; insert a new job",
    "opted_out": "the recipient opted out",
    "key": "the dedupe key belongs to another job now; insert a new job",
    "order": "a job before it in its order group will never be sent; insert a new job",
    "in_flight": "a worker has it in flight, and a message on its way cannot be stopped",
}
"""Completes `job ID: …`, by the words of `shardd.retries` and `count_cancels`."""
_NO_RETRY: Final = {
    JobState.SENT: "sent already, and a sent message stays sent; insert a new job to send it again",
    JobState.EXPIRED: _OBSTACLES["expired"],
    JobState.OPTED_OUT: _OBSTACLES["opted_out"],
}
_NO_CANCEL: Final = {
    JobState.SENDING: _OBSTACLES["in_flight"],
    JobState.SENT: "sent already",
    JobState.FAILED: "ended already: failed",
    JobState.IN_DOUBT: "ended already: in doubt; if you know what became of it: shardd job resolve",
    JobState.EXPIRED: "ended already: expired",
    JobState.OPTED_OUT: "ended already: the recipient opted out",
}
_NO_RESOLVE: Final = {
    state: f"not in doubt, but {state.replace('_', ' ')}" for state in JobState if state not in _CAN_RESOLVE
}
_COUNTS: Final[Sequence[Column[JobCount]]] = (
    Column("jobs", lambda some: number_text(some.jobs), right=True),
    Column("state", lambda some: state_text(some.state)),
    Column("class", lambda some: some.job_class),
    Column("campaign", lambda some: some.campaign or ""),
    Column("why not", lambda some: "" if some.obstacle is None else _OBSTACLES[some.obstacle]),
)


@dataclass(slots=True)
class Report:
    """How many jobs a command changed, and how many it left alone for which reason, with the first ids."""

    done: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)
    already: int = 0
    """Named jobs that were already as requested."""

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


@dataclass(frozen=True, slots=True)
class BulkAction:
    """All that the commands differ in."""

    verb: str
    past: str
    count: Callable[[JobAdmin, Traits, Sequence[int] | None], Awaitable[list[JobCount]]]
    handle: Callable[[JobAdmin, Traits, Sequence[int] | None], AsyncIterator[list[JobResult]]]
    refusals: Mapping[JobState, str]
    """Why named jobs in these states are not looked at."""
    wanted: frozenset[JobState]
    """Named jobs in these states are already as requested."""
    warning: str = ""
    """Completes `warning: 2 jobs in doubt …`."""
    only_as_seen: frozenset[JobState] = frozenset()
    """Of these states, only jobs that were in the same state when the operator was asked: one that is in doubt by now would
    have been another question."""


_RETRY: Final = BulkAction(
    verb="retry",
    past="retried",
    count=JobAdmin.count_retries,
    handle=JobAdmin.retry,
    refusals=_NO_RETRY,
    wanted=frozenset({JobState.QUEUED, JobState.SCHEDULED, JobState.SENDING}),
    warning="may have reached the recipient; retrying may send the message twice",
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


def _resolving(*, sent: bool) -> BulkAction:
    result = "as sent" if sent else "as not sent (failed)"
    return BulkAction(
        verb="resolve",
        past="resolved",
        count=JobAdmin.count_decisions,
        handle=lambda jobs, traits, ids: jobs.decide(traits, ids, sent=sent, by=login_name()),
        refusals=_NO_RESOLVE,
        wanted=frozenset({JobState.SENT if sent else JobState.FAILED}),
        warning=f"will be recorded {result} on your word; what a journal or a platform reports later changes it no more",
    )


def _bulk_options(states: Sequence[JobState]) -> Decorator:
    return all_of(
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        trait_options(states),
        click.option("--dry-run", is_flag=True, help="Only count; change nothing."),
        yes_option,
        json_option("Print an object with counts and refusals, for programs."),
        database_config_option,
    )


@click.command("retry", epilog=examples("shardd job retry 4711", "shardd job retry --error-class=connection --dry-run"))
@_bulk_options(_CAN_RETRY)
def retry(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Put ended jobs back into the queue.

    They may be failed, cancelled or in doubt, and get all their attempts again. Without ids: the jobs that the options describe,
    of these only the failed ones unless --state names another state. All failed jobs: --state failed.

    A job in doubt may have been sent. Retrying it may send it twice, so this is always asked first.
    """
    choice = read_choice(ids, options)
    any_state = choice.traits if choice.ids is None and choice.traits.state is None else None
    if any_state is not None:
        choice = Choice(None, replace(any_state, state=JobState.FAILED))
    _carry_out(_RETRY, choice, any_state, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


@click.command("cancel", epilog=examples("shardd job cancel 4711", "shardd job cancel --campaign=spring --dry-run"))
@_bulk_options(_CAN_CANCEL)
def cancel(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Cancel waiting jobs.

    What a worker has in flight cannot be stopped. `shardd job retry` brings cancelled jobs back.
    """
    choice = read_choice(ids, options)
    _carry_out(_CANCEL, choice, None, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


@click.command("resolve", epilog=examples("shardd job resolve 4711 --sent", "shardd job resolve 4711 --not-sent"))
@click.option("--sent/--not-sent", "sent", default=None, help="What you found out, such as on the phone.  [required]")
@_bulk_options(_CAN_RESOLVE)
def resolve(
    *, sent: bool | None, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any
) -> None:
    """Decide jobs in doubt.

    With --sent they are sent, and their order groups continue. With --not-sent they are failed: `shardd job retry` sends them
    again. The job keeps who decided and when.
    """
    if sent is None:
        raise UsageError("say what became of the message: --sent or --not-sent")
    choice = read_choice(ids, options)
    _carry_out(_resolving(sent=sent), choice, None, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


def _carry_out(
    action: BulkAction,
    choice: Choice,
    any_state: Traits | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    config: Config,
) -> None:
    """`any_state`: what the operator asked for, if the state in `choice` was added to it."""

    async def look(database: Database) -> Seen:
        jobs = JobAdmin(database)
        choices = [choice] if choice.ids is None else await _by_state(action, jobs, choice.ids, choice.traits)
        counts = [count for part in choices for count in await action.count(jobs, part.traits, part.ids)]
        if not counts:
            await check_names(database, choice.traits)
        others: Counter[str] = Counter()
        if not counts and any_state is not None:
            for some in await action.count(jobs, any_state, None):
                others[some.state] += some.jobs
        return Seen(counts, choices, others)

    # No connection is held while the operator thinks.
    seen = with_database(config, look)
    if dry_run:
        _show_plan(action, seen.counts, as_json=as_json)
        return
    good = [count for count in seen.counts if count.obstacle is None]
    _ask(action, good, by_traits=choice.ids is None, yes=yes)
    if good or choice.ids:
        report = with_database(config, lambda database: _handle_all(action, JobAdmin(database), choice, seen))
    else:
        report = Report()
        for some in seen.counts:
            report.left[_OBSTACLES[str(some.obstacle)]] += some.jobs
    _show_report(action, report, by_traits=choice.ids is None, as_json=as_json)
    if seen.others and not as_json:
        states = " and ".join(
            f"{count(number, 'job')} {state.replace('_', ' ')}" for state, number in seen.others.items()
        )
        say(f"no job of these failed; {states}: name the state, such as --state={next(iter(seen.others))}")


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
    hidden = not sys.stderr.isatty() or expected < PROGRESS_FROM
    with click.progressbar(length=expected, label=action.past, file=sys.stderr, hidden=hidden) as bar:
        for part in seen.choices:
            async for handled in action.handle(jobs, part.traits, part.ids):
                for one in handled:
                    if one.done:
                        report.done += 1
                    else:
                        report.leave(_why(one), one.id)
                if choice.ids is not None:
                    explained.update(one.id for one in handled)
                bar.update(len(handled))
    await _explain(action, jobs, choice, report, [number for number in choice.ids or () if number not in explained])
    return report


async def _explain(action: BulkAction, jobs: JobAdmin, choice: Choice, report: Report, ids: list[int]) -> None:
    """Why named jobs were not looked at, or changed in that moment."""
    states = await jobs.states(ids)
    only_ids = choice.traits == Traits()
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
    return _CHANGED if one.obstacle is None else _OBSTACLES[one.obstacle]


def _ask(action: BulkAction, counts: list[JobCount], *, by_traits: bool, yes: bool) -> None:
    by_state: Counter[str] = Counter()
    for some in counts:
        by_state[some.state] += some.jobs
    doubts = by_state[JobState.IN_DOUBT]
    if doubts:
        say(f"warning: {count(doubts, 'job')} in doubt {action.warning}", err=True)
    if counts and (doubts or by_traits):
        what = " and ".join(f"{number:,} {state}" for state, number in sorted(by_state.items()) if number)
        confirm(f"{action.verb.title()} {what} {'job' if by_state.total() == 1 else 'jobs'}?", yes=yes)


def _show_plan(action: BulkAction, counts: list[JobCount], *, as_json: bool) -> None:
    good = sum(count.jobs for count in counts if count.obstacle is None)
    if as_json:
        print_json({"dry_run": True, action.past: good, "counts": counts})
        return
    if counts:
        console = make_console()
        ranked = sorted(counts, key=lambda some: (some.obstacle is not None, -some.jobs))
        console.print(table_of(_COUNTS, ranked, console.width))
    say(f"would {action.verb} {count(good, 'job')}; nothing was changed")


def _show_report(action: BulkAction, report: Report, *, by_traits: bool, as_json: bool) -> None:
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
        refusals.add(report.examples.get(why, []), "job", why, number=number)
    refusals.finish()
