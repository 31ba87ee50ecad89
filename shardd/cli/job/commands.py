"""`shardd job`: what became of messages.

The commands talk to the database, so they work whether shardd runs or not.
"""

from __future__ import annotations

from typing import Any

import click

from shardd.cli.database import with_database
from shardd.cli.job.choice import check_names, read_traits, trait_options
from shardd.cli.job.view import job_json, show_job, show_jobs
from shardd.cli.lazy import LazyGroup
from shardd.cli.names import job_ids
from shardd.cli.options import WholeNumber, database_config_option
from shardd.cli.output import print_json
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.jobs import JobAdmin, JobRow, WholeJob
from shardd.states import JobState


@click.group(
    "job",
    cls=LazyGroup,
    lazy={"cancel": "shardd.cli.job.bulk:cancel", "retry": "shardd.cli.job.bulk:retry"},
)
def job_group() -> None:
    """Look at messages, send failed ones again, cancel waiting ones.

    ID may be - in retry and cancel: ids are read from stdin, one per line.
    """


@job_group.command("list")
@trait_options(JobState)
@click.option("--limit", type=WholeNumber(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@database_config_option
def list_(*, limit: int, as_json: bool, config: Config, **options: Any) -> None:
    """List jobs, newest first."""
    traits = read_traits(options)

    async def find(database: Database) -> list[JobRow]:
        found = await JobAdmin(database).newest(limit, traits, device_id=options["device_id"])
        if not found:
            await check_names(database, traits)
        return found

    jobs = with_database(config, find)
    if as_json:
        print_json([job_json(job) for job in jobs])
    else:
        show_jobs(jobs, limit)


@job_group.command("show")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs; times in ISO 8601.")
@database_config_option
def show(job_id: str, as_json: bool, config: Config) -> None:
    """Show one job: its state, what it waits for, its message."""
    (number,) = job_ids([job_id])

    async def find(database: Database) -> WholeJob | None:
        return await JobAdmin(database).show(number)

    job = with_database(config, find)
    if job is None:
        raise UsageError(f"job {number} is unknown")
    if as_json:
        print_json(job_json(job))
    else:
        show_job(job)
