"""`shardd job`: what became of messages, and what a person decides about them.

The commands talk to the database, so they work whether shardd runs or not. A job that a worker has in hand belongs to that
worker, and a sent message stays sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from shardd.cli.job_view import job_json, show_job, show_jobs
from shardd.cli.names import Refusals, confirm, job_ids
from shardd.cli.options import config_option
from shardd.cli.output import count, print_json
from shardd.cli.reach import with_database
from shardd.config import load_config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.device_admin import DeviceAdmin
from shardd.queue.job_admin import JobAdmin, JobRow, WeighedJob, WholeJob
from shardd.states import JOB_TRANSITIONS, JobState

CANCELLED_BY_HAND: Final = "cancelled by an operator"

_CAN_RETRY: Final = frozenset(state for state, events in JOB_TRANSITIONS.items() if "retry" in events)
_CAN_CANCEL: Final = frozenset(state for state, events in JOB_TRANSITIONS.items() if "cancel" in events)

_NO_RETRY: Final = {
    JobState.SENT: "sent already, and a sent message stays sent; insert a new job to send it again",
    JobState.SENDING: "a worker has it in hand",
    JobState.QUEUED: "in the queue already",
    JobState.SCHEDULED: "in the queue already",
}
_NO_CANCEL: Final = {
    JobState.SENDING: "a worker has it in hand, and a message on its way cannot be stopped",
    JobState.SENT: "sent already",
    JobState.FAILED: "ended already: failed",
    JobState.CANCELLED: "cancelled already",
    JobState.IN_DOUBT: "ended already: in doubt",
}
_MAYBE_TWICE: Final = (
    "nobody knows whether {jobs} in doubt reached {their} recipient: retried, {they} may be sent a second time"
)

_device_option = click.option("--device", "device_id", metavar="ID", help="Only jobs of this device.")


@click.group("job")
def job_group() -> None:
    """Look at messages, send failed ones again, cancel waiting ones.

    ID may be - in retry and cancel: ids are read from stdin, one per line.
    """


@job_group.command("list")
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only jobs in this state.")
@_device_option
@click.option("--reference", metavar="TEXT", help="Only jobs with this reference of the producer.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@config_option
def list_(
    *,
    state: str | None,
    device_id: str | None,
    reference: str | None,
    limit: int,
    as_json: bool,
    config_file: Path,
) -> None:
    """List jobs, newest first."""

    async def find(database: Database) -> list[JobRow]:
        wanted = None if state is None else JobState(state)
        found = await JobAdmin(database).newest(limit, state=wanted, device_id=device_id, reference=reference)
        if not found:
            await _check_device(database, device_id)
        return found

    jobs = with_database(load_config(config_file), find)
    if as_json:
        print_json([job_json(job) for job in jobs])
    else:
        show_jobs(jobs, limit)


@job_group.command("show")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs; times in ISO 8601.")
@config_option
def show(job_id: str, as_json: bool, config_file: Path) -> None:
    """Show one job: its state, what it waits for, its message."""
    (number,) = job_ids([job_id])

    async def find(database: Database) -> WholeJob | None:
        return await JobAdmin(database).show(number)

    job = with_database(load_config(config_file), find)
    if job is None:
        raise UsageError(f"job {number} is unknown")
    if as_json:
        print_json(job_json(job))
    else:
        show_job(job)


@job_group.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--state",
    type=click.Choice(sorted(state.value for state in _CAN_RETRY)),
    help="All jobs in this state, instead of ids.",
)
@_device_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def retry(*, ids: tuple[str, ...], state: str | None, device_id: str | None, yes: bool, config_file: Path) -> None:
    """Bring failed, cancelled or in-doubt jobs back into the queue, with all their attempts anew.

    A job in doubt may have been sent: retrying it may send it twice, so that is asked first.
    """
    if bool(ids) == (state is not None) or (device_id is not None and state is None):
        raise UsageError(
            "say which jobs: their ids, or --state failed, cancelled or in_doubt, with or without --device"
        )
    config, numbers = load_config(config_file), job_ids(ids)

    async def weigh(database: Database) -> list[WeighedJob]:
        if state is None:
            return await JobAdmin(database).weigh(numbers)
        found = await JobAdmin(database).weigh_finished(JobState(state), device_id)
        if not found:
            await _check_device(database, device_id)
        return found

    async def bring_back(database: Database) -> set[int]:
        return await JobAdmin(database).retry([job.id for job in good])

    # Between the two steps a person may think; no connection is held for that long.
    weighed = with_database(config, weigh)
    good = [job for job in weighed if job.state in _CAN_RETRY and not job.orphaned]
    _ask_before_retry(good, by_state=state is not None, yes=yes)
    back = with_database(config, bring_back) if good else set()
    if back or state is not None:
        click.echo(f"retried {count(len(back), 'job')}")
    refusals = Refusals()
    refusals.tell(_missing(numbers, weighed), "job", "unknown")
    _refuse(refusals, [job for job in weighed if job.state not in _CAN_RETRY], _NO_RETRY)
    orphans = [job.id for job in weighed if job.state in _CAN_RETRY and job.orphaned]
    refusals.tell(orphans, "job", "the device was removed; bring it back with: shardd device add")
    refusals.tell([job.id for job in good if job.id not in back], "job", "changed in the meantime; look again")
    refusals.finish()


@job_group.command("cancel")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--device", "device_id", metavar="ID", help="All waiting jobs of this device, instead of ids.")
@click.option("--reference", metavar="TEXT", help="All waiting jobs with this reference, instead of ids.")
@config_option
def cancel(ids: tuple[str, ...], device_id: str | None, reference: str | None, config_file: Path) -> None:
    """Cancel jobs that wait. What a worker has in hand cannot be stopped. `job retry` brings cancelled jobs back."""
    by_filter = device_id is not None or reference is not None
    if bool(ids) == by_filter:
        raise UsageError("say which jobs: their ids, or --device, or --reference, or these two together")
    numbers = job_ids(ids)

    async def weigh_and_cancel(database: Database) -> tuple[list[WeighedJob], set[int]]:
        jobs = JobAdmin(database)
        if by_filter:
            devices = None if device_id is None else [device_id]
            weighed = await jobs.weigh_live(device_ids=devices, reference=reference)
            if not weighed:
                await _check_device(database, device_id)
        else:
            weighed = await jobs.weigh(numbers)
        good = [job.id for job in weighed if job.state in _CAN_CANCEL]
        gone = await jobs.cancel(good, CANCELLED_BY_HAND) if good else set()
        # A job may have been claimed, or have ended, between the two statements.
        late = [number for number in good if number not in gone]
        if late:
            now = {job.id: job for job in await jobs.weigh(late)}
            weighed = [now.get(job.id, job) for job in weighed]
        return weighed, gone

    weighed, gone = with_database(load_config(config_file), weigh_and_cancel)
    if gone or by_filter:
        click.echo(f"cancelled {count(len(gone), 'job')}")
    refusals = Refusals()
    refusals.tell(_missing(numbers, weighed), "job", "unknown")
    _refuse(refusals, [job for job in weighed if job.id not in gone], _NO_CANCEL)
    refusals.finish()


def _ask_before_retry(jobs: list[WeighedJob], *, by_state: bool, yes: bool) -> None:
    if not jobs:
        return
    doubts = sum(job.state == JobState.IN_DOUBT for job in jobs)
    if doubts:
        one = doubts == 1
        words = {"jobs": count(doubts, "job"), "their": "its" if one else "their", "they": "it" if one else "they"}
        click.echo(f"warning: {_MAYBE_TWICE.format_map(words)}", err=True)
    if doubts or by_state:
        states = Counter(job.state for job in jobs)
        what = " and ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
        confirm(f"Retry {what} {'job' if len(jobs) == 1 else 'jobs'}?", yes=yes)


def _refuse(refusals: Refusals, jobs: Iterable[WeighedJob], reasons: dict[JobState, str]) -> None:
    by_state: dict[JobState, list[int]] = {}
    for job in jobs:
        by_state.setdefault(JobState(job.state), []).append(job.id)
    for state, numbers in by_state.items():
        refusals.tell(numbers, "job", reasons.get(state, f"{state} now; try again"))


def _missing(numbers: list[int], found: Iterable[WeighedJob]) -> list[int]:
    known = {job.id for job in found}
    return [number for number in numbers if number not in known]


async def _check_device(database: Database, device_id: str | None) -> None:
    if device_id is not None and not await DeviceAdmin(database).was_there(device_id):
        raise UsageError(f"device {device_id} is unknown; the others: shardd device list")
