"""`shardd job retry`, `cancel`, `resolve` and `revoke`: one job or a million.

A job that a worker has in flight is left alone. The commands may be repeated: a job that is
already as requested is no error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import click

from shardd.cli.acts import acting, acts, under_way
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.job.choice import read_choice, trait_options
from shardd.cli.listing import Column, table_of
from shardd.cli.names import Refusals, confirm, login_name
from shardd.cli.options import Decorator, all_of, database_config_option, json_option, yes_option
from shardd.cli.output import make_console, number_text, print_json, say, state_text
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.bulk_actions import (
    CAN_CANCEL,
    CAN_RESOLVE,
    CAN_RETRY,
    CAN_REVOKE,
    CANCEL,
    OBSTACLES,
    RETRY,
    REVOKE,
    BulkAction,
    Choice,
    Report,
    Seen,
    carry_out,
    done_words,
    look,
    meant_by,
    question_of,
    resolving,
    warning_of,
)
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, JobCount
from shardd.queue.recorded_jobs import BrokenOffError, ManyJobs, carry_out_on_many, jobs_with, named_jobs
from shardd.queue.trait_names import check_names
from shardd.states import JobState
from shardd.words import count

PROGRESS_FROM: Final = 10_000
"""Jobs from which on a terminal shows a progress bar."""

_COUNTS: Final[Sequence[Column[JobCount]]] = (
    Column("jobs", lambda some: number_text(some.jobs), right=True),
    Column("state", lambda some: state_text(some.state)),
    Column("class", lambda some: some.job_class),
    Column("campaign", lambda some: some.campaign or ""),
    Column("why not", lambda some: "" if some.obstacle is None else OBSTACLES[some.obstacle]),
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
@_bulk_options(CAN_RETRY)
@acts("retry")
def retry(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Put ended jobs back into the queue.

    They may be failed, cancelled or in doubt, and get all their attempts again. Without ids: the jobs that the options describe,
    of these only the failed ones unless --state names another state. All failed jobs: --state failed.

    A job in doubt may have been sent. Retrying it may send it twice, so this is always asked first.
    """
    choice = read_choice(ids, options)
    carry_out_bulk(RETRY, choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


@click.command("cancel", epilog=examples("shardd job cancel 4711", "shardd job cancel --campaign=spring --dry-run"))
@_bulk_options(CAN_CANCEL)
@acts("cancel")
def cancel(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Cancel waiting jobs.

    What a worker has in flight cannot be stopped. `shardd job retry` brings cancelled jobs back.
    """
    choice = read_choice(ids, options)
    carry_out_bulk(CANCEL, choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


@click.command("resolve", epilog=examples("shardd job resolve 4711 --sent", "shardd job resolve 4711 --not-sent"))
@click.option("--sent/--not-sent", "sent", default=None, help="What you found out, such as on the phone.  [required]")
@_bulk_options(CAN_RESOLVE)
@acts("resolve")
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
    carry_out_bulk(
        resolving(sent=sent, by=login_name()), choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config
    )


@click.command("revoke", epilog=examples("shardd job revoke 4711", "shardd job revoke --reference=order-17 --dry-run"))
@_bulk_options(CAN_REVOKE)
@acts("revoke")
def revoke(*, ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, config: Config, **options: Any) -> None:
    """Delete sent messages for everyone.

    For each, a job of the device that sent it is added, ahead of what waits there. Sent means that WhatsApp took it: whether the
    recipient's app deletes the message is up to that app, and one that comes too late is ignored.
    """
    choice = read_choice(ids, options)
    carry_out_bulk(REVOKE, choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config)


def carry_out_bulk(
    action: BulkAction,
    choice: Choice,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    config: Config,
    note: str = "",
    campaign: str | None = None,
) -> None:
    """Look, ask, do and report. `note`: what a person should know before the yes; `campaign`: the one whose jobs are meant."""
    any_state = None
    if choice.ids is None and (meant := meant_by(action, choice.traits)) != choice.traits:
        any_state, choice = choice.traits, Choice(None, meant)

    async def see(database: Database) -> Seen:
        seen = await look(action, JobAdmin(database), choice, any_state)
        if not seen.counts:
            await check_names(database, choice.traits)
        return seen

    # No connection is held while the operator thinks.
    seen = with_database(config, see)
    if note and not as_json:
        say(f"note: {note}", err=True)
    if dry_run:
        _show_plan(action, seen.counts, as_json=as_json)
        return
    by_traits = choice.ids is None
    warning = warning_of(action, seen)
    if warning:
        say(f"warning: {warning}", err=True)
    if seen.good and (warning or by_traits):
        confirm(question_of(action, seen), yes=yes)
    many = jobs_with(choice, seen) if choice.ids is None else named_jobs(choice.ids, choice, seen)
    if campaign is not None:
        many = replace(many, target=f"campaign {campaign}", detail="")
    expected = sum(some.jobs for some in seen.counts)
    hidden = not sys.stderr.isatty() or expected < PROGRESS_FROM
    with click.progressbar(length=expected, label=action.past, file=sys.stderr, hidden=hidden) as bar:
        report = with_database(config, partial(_carry_out, config, action, many, bar.update))
    _show_report(action, report, by_traits=by_traits, as_json=as_json)
    if seen.others and not as_json:
        states = " and ".join(
            f"{count(number, 'job')} {state.replace('_', ' ')}" for state, number in seen.others.items()
        )
        say(f"no job of these failed; {states}: name the state, such as --state={next(iter(seen.others))}")


async def _carry_out(
    config: Config, action: BulkAction, many: ManyJobs, progress: Callable[[int], None], database: Database
) -> Report:
    """Do it, with what the audit log has of it: nothing, if there is nothing to do."""
    choice, seen = many.choice, many.seen
    if choice.ids is None and not seen.good:
        return await carry_out(action, JobAdmin(database), choice, seen)
    if choice.ids is not None and len(choice.ids) == 1:
        async with acting(database, config, many.target, action.decision) as act:
            report = await carry_out(action, JobAdmin(act.database), choice, seen, progress=progress)
            act.happened = report.done > 0
        return report
    try:
        recorded = partial(under_way, database, config)
        return await carry_out_on_many(recorded, action, JobAdmin(database), many, progress=progress)
    except BrokenOffError as error:
        raise error.why from error


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
        say(done_words(action, report))
    refusals = Refusals()
    for why, number in report.left.items():
        refusals.add(report.examples.get(why, []), "job", why, number=number)
    refusals.finish()
