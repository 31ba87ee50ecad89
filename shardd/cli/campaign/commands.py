"""The commands. A pause or a cancellation takes effect at once, however many jobs wait: a claim looks at its campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

import click
from rich.progress_bar import ProgressBar

from shardd.cli.acts import acts, change, change_each, change_some, report_changes
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.job.bulk import carry_out_bulk
from shardd.cli.listing import WIDE, Column, Listing, table_of
from shardd.cli.names import confirm, id_argument, ids_argument, refuse, some, unknown, without
from shardd.cli.options import (
    OneOf,
    ReadBy,
    all_of,
    database_config_option,
    json_list_option,
    json_option,
    limit_option,
    yes_option,
)
from shardd.cli.output import (
    Facts,
    Table,
    Text,
    make_console,
    make_facts,
    make_grid,
    number_text,
    print_json,
    say,
    state_text,
)
from shardd.config import Config
from shardd.config.pacing import LIMIT
from shardd.config.values import Number
from shardd.errors import UsageError
from shardd.queue.acts import joined
from shardd.queue.bulk_actions import REVOKE, Choice
from shardd.queue.campaign_counts import CampaignCounts
from shardd.queue.campaign_progress import Progress, campaign_json, progress_of
from shardd.queue.campaigns import (
    FINAL,
    WEIGHTS,
    CampaignAdmin,
    CampaignDetails,
    CampaignJobs,
    CampaignRow,
    CampaignState,
    CampaignTerms,
    CampaignTitle,
    DeviceShare,
    waiting_words,
    what_ends,
    what_waits,
)
from shardd.queue.job_admin import Traits
from shardd.queue.queries import Changes, Queries
from shardd.states import FINISHED, JobState
from shardd.words import ago, count, moment_text

WEIGHT: Final = Number(low=WEIGHTS[0], high=WEIGHTS[1], what="one such as 2 or 0.5")
TOP: Final = 10
"""Devices that `show` lists; all of them are in its JSON."""
NARROW: Final = 70
"""Width below which the table of devices leaves out failures and times."""
BAR: Final = 30
"""Width of the progress bar."""
_STEPS: Final = (JobState.QUEUED, JobState.SCHEDULED, JobState.SENDING)
_STATES: Final = [state.value for state in CampaignState]
_UNKNOWN: Final = "unknown; the others: shardd campaign list"


def _state(shown: str, state: str) -> Text:
    """What is shown of a campaign's state, in the colour of the state itself."""
    text = state_text(state)
    text.plain = shown
    return text


CAMPAIGNS: Final = Listing[CampaignRow](
    one="campaign",
    none="no such campaigns; begin one with: shardd campaign add ID",
    columns=[
        Column("id", lambda row: row.id),
        Column("state", lambda row: _state(row.shown_state, row.state), whole=True),
        Column("jobs left", lambda row: number_text(row.live), right=True),
        Column("in 10 min", lambda row: number_text(row.sent_lately), right=True),
        Column("last sent", lambda row: ago(row.last_sent), whole=True),
        Column("weight", lambda row: f"{row.weight:g}", right=True, at_least=WIDE),
        Column("cap", lambda row: "-" if row.device_cap is None else f"{row.device_cap:,}", right=True, at_least=WIDE),
        Column("label", lambda row: row.label or "", at_least=WIDE),
        Column("why", lambda row: row.why or ""),
    ],
)

_terms = all_of(
    click.option("--label", help="A name for people."),
    click.option(
        "--weight",
        type=ReadBy(WEIGHT),
        help="Its share of a device, relative to other campaigns.",
    ),
    click.option("--device-cap", type=ReadBy(LIMIT), help="Messages per device and day; 0: no cap of its own."),
)


@click.group(
    "campaign", epilog=examples("shardd campaign show spring", "shardd campaign pause spring --why='typo in the text'")
)
def campaign_group() -> None:
    """Add, list, pause, resume, cancel and revoke campaigns.

    A job belongs to a campaign by its column `campaign`. Where a command takes several IDs, - stands for ids on stdin, one per
    line.
    """


@campaign_group.command("add", epilog=examples("shardd campaign add spring --weight=2 --device-cap=200"))
@ids_argument("campaign")
@_terms
@click.option("--paused", is_flag=True, help="Begin paused.")
@database_config_option
@acts("add")
def add(*, ids: list[str], paused: bool, config: Config, **terms: Any) -> None:
    """Begin campaigns on the same terms.

    One that exists on these terms is left as it is.
    """
    wanted = CampaignTerms(**terms)
    state = CampaignState.PAUSED if paused else CampaignState.RUNNING

    async def work(database: Queries) -> tuple[set[str], list[CampaignRow]]:
        campaigns = CampaignAdmin(database)
        added = await campaigns.add(ids, wanted, state)
        return added, await campaigns.find(without(ids, added))

    added, there = change(config, "campaign", work, changed=itemgetter(0))
    cancelled = [row.id for row in there if row.state == CampaignState.CANCELLED]
    differs = [row.id for row in there if row.id not in cancelled and not wanted.are_of(row)]
    if added:
        say(f"added {count(len(added), 'campaign')}")
    if same := [row.id for row in there if row.id not in (*cancelled, *differs)]:
        say(f"already exists: {some(same)}" if len(same) == 1 else f"already exist: {some(same)}")
    changeable = "already exists with other terms, and is unchanged; to change it: shardd campaign set"
    refuse("campaign", {FINAL: cancelled, changeable: differs})


@campaign_group.command("set", epilog=examples("shardd campaign set spring --device-cap=100"))
@ids_argument("campaign")
@_terms
@database_config_option
@acts("set")
def set_(*, ids: list[str], config: Config, **terms: Any) -> None:
    """Change the terms of campaigns.

    A running shardd applies them at once.
    """
    wanted = CampaignTerms(**terms)
    if wanted == CampaignTerms():
        raise UsageError("say what to change: --label, --weight or --device-cap")
    zone = config.pacing.timezone
    done = change_some(
        config, "campaign", lambda database: CampaignAdmin(database).change(ids, wanted, zone), wanted.words
    )
    report_changes("changed", "campaign", done, {_UNKNOWN: without(ids, done.found)})


@campaign_group.command("list", epilog=examples("shardd campaign list --state=paused"))
@click.option(
    "--state",
    type=OneOf(_STATES),
    metavar="STATE",
    help=f"Only campaigns in this state: {', '.join(_STATES)}; those that are finished are running.",
)
@limit_option
@json_list_option
@database_config_option
def list_(*, state: str | None, limit: int, as_json: bool, config: Config) -> None:
    """List campaigns, newest first."""
    wanted = None if state is None else CampaignState(state)
    rows = with_database(config, lambda database: CampaignAdmin(database).newest(limit, state=wanted))
    CAMPAIGNS.show(rows, as_json=as_json, limit=limit)


@campaign_group.command("show", epilog=examples("shardd campaign show spring"))
@id_argument("campaign", "campaign")
@json_option("Print an object with all devices, for programs; times in ISO 8601.")
@database_config_option
def show(campaign: str, as_json: bool, config: Config) -> None:
    """Show a campaign's progress, rate and obstacles."""
    zone = config.pacing.timezone
    details = with_database(config, lambda database: CampaignCounts(database).details(campaign, zone))
    if details is None:
        raise unknown("campaign", campaign)
    progress = progress_of(details, datetime.now(UTC))
    if as_json:
        print_json(campaign_json(details, progress))
    else:
        _show(details, progress)


@campaign_group.command("pause", epilog=examples("shardd campaign pause spring --why='typo in the text'"))
@ids_argument("campaign")
@click.option("--why", help="Shown as why its jobs wait.")
@database_config_option
@acts("pause")
def pause(ids: list[str], why: str | None, config: Config) -> None:
    """Pause campaigns; their jobs wait.

    What a worker has in flight is finished.
    """
    _set_state("paused", ids, CampaignState.PAUSED, why, config)


@campaign_group.command("resume", epilog=examples("shardd campaign resume spring"))
@ids_argument("campaign")
@database_config_option
@acts("resume")
def resume(ids: list[str], config: Config) -> None:
    """Resume paused campaigns."""
    _set_state("resumed", ids, CampaignState.RUNNING, None, config)


@campaign_group.command("cancel", epilog=examples("shardd campaign cancel spring --why='wrong text'"))
@ids_argument("campaign")
@click.option("--why", help="Becomes the error of its jobs.")
@yes_option
@database_config_option
@acts("cancel")
def cancel(ids: list[str], why: str | None, yes: bool, config: Config) -> None:
    """Cancel campaigns for good.

    Their waiting jobs are never sent; what a worker has in flight is finished. The jobs move to the archive as cancelled ones
    while shardd runs.
    """
    # No connection is held while the operator thinks.
    found = with_database(config, lambda database: CampaignAdmin(database).count_jobs(ids))
    open_ = [one for one in found if one.state != CampaignState.CANCELLED]
    if open_:
        confirm(f"Cancel {_named(open_)} for good? {what_ends(open_)}", yes=yes)
        waiting = waiting_words(open_)
        ended = change_each(
            config,
            "campaign",
            lambda database: CampaignAdmin(database).cancel([one.id for one in open_], why),
            joined(waiting, why or ""),
        )
        say(f"cancelled {count(len(ended), 'campaign')} with {waiting}")
    if before := [one.id for one in found if one.state == CampaignState.CANCELLED]:
        say(f"cancelled already: {some(before)}")
    refuse("campaign", {_UNKNOWN: without(ids, [one.id for one in found])})


@campaign_group.command("revoke", epilog=examples("shardd campaign revoke spring --dry-run"))
@id_argument("campaign", "campaign")
@click.option("--dry-run", is_flag=True, help="Only count; change nothing.")
@yes_option
@json_option("Print an object with counts and refusals, for programs.")
@database_config_option
@acts("revoke")
def revoke(campaign: str, dry_run: bool, yes: bool, as_json: bool, config: Config) -> None:
    """Delete a campaign's sent messages for everyone.

    See `shardd job revoke`. What waits is still sent: pause or cancel the campaign first. The command may be repeated: what is
    revoked already is left alone.
    """
    found = with_database(config, lambda database: CampaignAdmin(database).count_jobs([campaign]))
    if not found:
        raise unknown("campaign", campaign)
    choice = Choice(None, Traits(campaign=campaign))
    note = what_waits(found[0])
    carry_out_bulk(
        REVOKE, choice, dry_run=dry_run, yes=yes, as_json=as_json, config=config, note=note, campaign=campaign
    )


def _set_state(past: str, ids: list[str], state: CampaignState, why: str | None, config: Config) -> None:

    async def work(database: Queries) -> tuple[Changes, list[str]]:
        campaigns = CampaignAdmin(database)
        done = await campaigns.set_state(ids, state, why)
        return done, [row.id for row in await campaigns.find(without(ids, done.found))]

    done, others = change(
        config, "campaign", work, changed=lambda result: result[0].changed, detail=lambda _: why or ""
    )
    report_changes(past, "campaign", done, {_UNKNOWN: without(ids, done.found, others), FINAL: others})


def _named(campaigns: list[CampaignJobs]) -> str:
    names = some([one.id for one in campaigns])
    return f"campaign {names}" if len(campaigns) == 1 else f"{count(len(campaigns), 'campaign')} {names}"


# ---- the screen of one campaign


def _show(details: CampaignDetails, progress: Progress) -> None:
    console = make_console()
    row = details.row
    console.print(make_facts(_facts(row, progress, details.revocations)))
    for pool in details.pools:
        able = f"{pool.able} of its {count(pool.devices, 'device')} can send"
        console.print(Text(f"{count(pool.jobs, 'job')} in the pool of group {pool.device_group}; {able}"))
    devices = [share for share in details.shares if share.device_id is not None]
    if devices:
        console.print()
        console.print(table_of(_device_columns(row.device_cap), devices[:TOP], console.width))
    if len(devices) > TOP:
        console.print(Text(f"and {count(len(devices) - TOP, 'more device')}; all of them: --json", "dim"))


def _facts(row: CampaignTitle, progress: Progress, revocations: Mapping[str, int]) -> Facts:
    state = _state(row.shown_state, row.state)
    if row.state != CampaignState.RUNNING:
        state.append(f" since {moment_text(row.state_since)}", "default")
    paused = row.state == CampaignState.PAUSED
    held_back = progress.held_back and progress.waits_for != progress.held_back_by
    return [
        ("campaign", row.id),
        ("label", row.label),
        ("state", state),
        ("why", row.why),
        ("to do", f"let it send again: shardd campaign resume {row.id}" if paused else ""),
        ("waits for", Text(progress.waits_for or "", "yellow")),
        (
            "held back",
            Text(f"{count(progress.held_back, 'job')}: {progress.held_back_by}" if held_back else "", "yellow"),
        ),
        ("progress", _bar(progress)),
        ("waiting", _numbers(progress.states, _STEPS)),
        ("ended", _numbers(progress.states, [state for state in JobState if state in FINISHED])),
        ("revocations", _numbers(revocations, list(JobState))),
        ("", Text(f"shardd job list --revokes-campaign={row.id}" if revocations else "", "dim")),
        ("rate", progress.rate_text),
        ("time left", progress.time_left),
        ("weight", f"{row.weight:g}"),
        ("cap", "" if row.device_cap is None else f"{count(row.device_cap, 'message')} per device and day"),
        ("first sent", moment_text(progress.first_sent)),
        ("last sent", moment_text(progress.last_sent)),
        ("added", moment_text(row.created_at)),
    ]


def _device_columns(cap: int | None) -> list[Column[DeviceShare]]:
    def today(share: DeviceShare) -> Text:
        return Text(f"{share.sent_today:,}/{cap:,}", "yellow" if share.sent_today >= (cap or 0) else "")

    return [
        Column("device", lambda share: share.device_id or ""),
        Column("state", lambda share: state_text(share.device_state or "unknown"), whole=True),
        Column("sent", lambda share: number_text(share.sent), right=True),
        *([] if cap is None else [Column("today", today, right=True)]),
        Column("waiting", lambda share: number_text(share.waiting + share.sending), right=True),
        Column("failed", lambda share: number_text(share.failed, "red"), right=True, at_least=NARROW),
        Column("in doubt", lambda share: number_text(share.in_doubt, "bold yellow"), right=True, at_least=NARROW),
        Column("last sent", lambda share: ago(share.last_sent), whole=True, at_least=NARROW),
    ]


def _bar(progress: Progress) -> Table | str:
    if not progress.total:
        return ""
    grid = make_grid(1)
    words = f"{progress.percent_text} of {count(progress.total, 'job')}"
    grid.add_row(ProgressBar(progress.total, progress.ended, width=BAR), words)
    return grid


def _numbers(jobs: Mapping[Any, int], states: Sequence[JobState]) -> Text:
    words = Text()
    for state in states:
        if number := jobs.get(state):
            words.append(", " if words else "").append(f"{number:,} ").append_text(state_text(state.value))
    return words
