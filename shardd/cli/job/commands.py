"""`shardd job list` and `show`; see `bulk` for the commands that change jobs."""

from __future__ import annotations

from typing import Any, Final

import click

from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.job.choice import read_traits, trait_options
from shardd.cli.lazy import LazyGroup
from shardd.cli.listing import AIRY, WIDE, Column, Listing
from shardd.cli.names import job_ids
from shardd.cli.opt_out.recipients import spelling_of
from shardd.cli.options import database_config_option, json_list_option, json_option, limit_option
from shardd.cli.output import (
    SANDBOX,
    SANDBOX_STYLE,
    Facts,
    Lines,
    Text,
    make_console,
    make_facts,
    print_json,
    state_text,
    transport_text,
)
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin
from shardd.queue.job_words import handling_facts, media_words, origin_facts, revocation_words, tries_of
from shardd.queue.records import JobRow, WholeJob
from shardd.queue.trait_names import check_names
from shardd.states import JobState
from shardd.words import ago, json_text, moment_text


def _transport(job: JobRow) -> Text:
    return transport_text(job.transport or ("" if job.device_id is None else "?"))


def _what_of_it(job: JobRow) -> str:
    """What it waits for, or its error; a revocation is no message, which a narrow list would not say otherwise."""
    revokes = "" if job.revokes is None else f"revokes {job.revokes}"
    return "; ".join(filter(None, (revokes, job.waits_for or job.error or job.unreadable_why)))


JOBS: Final = Listing[JobRow](
    one="job",
    none="no such jobs",
    transport=lambda job: job.transport,
    columns=[
        Column("id", lambda job: str(job.id), right=True),
        Column("state", lambda job: state_text(job.state), whole=True),
        Column("device", lambda job: job.device_id or f"({job.device_group})"),
        Column("recipient", lambda job: job.recipient, whole=True),
        Column("changed", lambda job: ago(job.settled_at or job.created_at), whole=True),
        Column("transport", _transport, at_least=AIRY),
        Column("kind", lambda job: job.kind, at_least=AIRY),
        Column("class", lambda job: job.job_class, at_least=AIRY),
        Column("campaign", lambda job: job.campaign or "", at_least=WIDE),
        Column("tries", lambda job: f"{tries_of(job)}/{job.max_attempts}", right=True, at_least=WIDE),
        Column("reference", lambda job: job.reference or "", at_least=WIDE),
        Column("waits for, or error", _what_of_it),
    ],
)


@click.group(
    "job",
    epilog=examples("shardd job list --state=in_doubt", "shardd job show 4711"),
    cls=LazyGroup,
    lazy={name: f"shardd.cli.job.bulk:{name}" for name in ("cancel", "resolve", "retry", "revoke")},
)
def job_group() -> None:
    """List, show, retry, cancel, resolve and revoke jobs.

    For retry, cancel, resolve and revoke, - stands for ids on stdin, one per line.
    """


@job_group.command(
    "list", epilog=examples("shardd job list --state=in_doubt", "shardd job list --device=berlin-1 --limit=10")
)
@trait_options(JobState)
@click.option("--recipient", metavar="NUMBER", help="Only jobs to this number, in any spelling, ID@lid or ID@g.us.")
@click.option("--unreadable", is_flag=True, help="Only jobs whose message a device of the recipient could not decrypt.")
@click.option(
    "--waits-for",
    metavar="TEXT",
    help="Only queued jobs that wait for this, in the words of `shardd status`: 'its device: paused', 'its daily limit'.",
)
@limit_option
@json_list_option
@database_config_option
def list_(
    *,
    recipient: str | None,
    unreadable: bool,
    waits_for: str | None,
    limit: int,
    as_json: bool,
    config: Config,
    **options: Any,
) -> None:
    """List jobs, newest first."""
    traits = read_traits(options)
    address = None if recipient is None else spelling_of(config).address(recipient)

    async def find(database: Database) -> list[JobRow]:
        found = await JobAdmin(database).newest(
            limit, traits, unreadable=unreadable, address=address, waits_for=waits_for
        )
        if not found:
            await check_names(database, traits)
        return found

    JOBS.show(with_database(config, find), as_json=as_json, limit=limit)


@job_group.command("show", epilog=examples("shardd job show 4711"))
@click.argument("job_id", metavar="ID")
@json_option()
@database_config_option
def show(job_id: str, as_json: bool, config: Config) -> None:
    """Show one job with its message."""
    (number,) = job_ids([job_id])
    job = with_database(config, lambda database: JobAdmin(database).show(number))
    if job is None:
        raise UsageError(f"job {number} is unknown")
    if as_json:
        print_json(job)
    else:
        make_console().print(make_facts(_facts(job)))


def device_text(job: JobRow) -> Text:
    """The device, and whether its messages reach anybody."""
    device = Text(job.device_id or "")
    if job.transport == SANDBOX:
        device.append(" (sandbox: its messages reach nobody)", SANDBOX_STYLE)
    return device


def _facts(job: WholeJob) -> Facts:
    return [
        ("job", str(job.id)),
        ("state", state_text(job.state)),
        ("waits for", job.waits_for),
        ("note" if job.state == JobState.SENT else "error", job.error),
        ("error class", job.error_class),
        ("device", device_text(job)),
        ("device group", job.device_group),
        ("recipient", job.recipient),
        ("class", job.job_class),
        ("campaign", job.campaign),
        *handling_facts(job),
        ("inserted", moment_text(job.created_at)),
        ("run at", moment_text(job.run_at) if job.run_at != job.created_at else ""),
        ("due at", moment_text(job.due_at)),
        ("expires at", moment_text(job.expires_at)),
        ("claimed", moment_text(job.claimed_at)),
        ("by", f"shard {job.shard} on {job.node}" if job.node is not None else ""),
        ("ended", moment_text(job.settled_at)),
        ("delivered", moment_text(job.delivered_at)),
        ("read", moment_text(job.read_at)),
        ("unreadable", moment_text(job.unreadable_at)),
        ("because", job.unreadable_why),
        ("sent again as", f"job {job.resent_as}" if job.resent_as is not None else ""),
        ("answers", f"message {job.reply_to}" if job.reply_to is not None else ""),
        ("repeats", f"job {job.resend_of}" if job.resend_of is not None else ""),
        ("deletes", f"the message of job {job.revokes}" if job.revokes is not None else ""),
        ("revoked", revocation_words(job)),
        *origin_facts(job),
        ("kind", job.kind),
        ("media", media_words(job.media)),
        ("file name", job.file_name),
        ("mime type", job.mime_type),
        ("details", json_text(job.details)),
        ("metadata", json_text(job.metadata)),
        ("variables", json_text(job.variables)),
        ("body", Lines(job.body)),
    ]
