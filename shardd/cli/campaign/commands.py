"""`shardd campaign`: jobs that are paused, resumed, cancelled and counted together.

The commands talk to the database, so they work whether shardd runs or not. Pausing and cancelling are in force at once, however
many jobs wait: a claim looks at its campaign.
"""

from __future__ import annotations

from typing import Final

import click

from shardd.cli.campaign.view import campaign_json, details_json, show_campaign, show_campaigns
from shardd.cli.database import with_database
from shardd.cli.names import Refusals, confirm, short_names, some
from shardd.cli.options import Number, WholeNumber, database_config_option
from shardd.cli.output import count, print_json, say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.queue.campaigns import CampaignAdmin, CampaignRow, CampaignState, CampaignTerms, WeighedCampaign
from shardd.queue.database import Database

MAX_WEIGHT: Final = 1000.0
_FINAL: Final = "cancelled, and that is final; begin a new one under another id"
_UNKNOWN: Final = "unknown; the others: shardd campaign list"

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")
_label = click.option("--label", help="A name for people.")
_weight = click.option(
    "--weight",
    type=Number(MAX_WEIGHT),
    metavar="NUMBER",
    help="Its share of a device that several campaigns use, against theirs.",
)
_device_cap = click.option(
    "--device-cap", type=WholeNumber(0, 1_000_000), help="Messages per device and day; 0: as many as the device may."
)
_why = click.option("--why", help="Shown wherever somebody asks why its jobs wait.")


@click.group("campaign")
def campaign_group() -> None:
    """Begin, look at, pause, resume and cancel campaigns.

    A job belongs to one by its column `campaign`. Commands that take several IDs read them from stdin, one per line, where -
    stands for an ID.
    """


@campaign_group.command("add")
@_ids
@_label
@_weight
@_device_cap
@click.option("--paused", is_flag=True, help="It sends nothing before it is resumed.")
@database_config_option
def add(
    *,
    ids: tuple[str, ...],
    label: str | None,
    weight: float | None,
    device_cap: int | None,
    paused: bool,
    config: Config,
) -> None:
    """Begin campaigns that differ in nothing but their ids. One that is there already with the same terms stays as it is."""
    names, terms = short_names(ids, "campaign"), _terms(label, weight, device_cap)
    state = CampaignState.PAUSED if paused else CampaignState.RUNNING

    async def work(database: Database) -> tuple[set[str], list[CampaignRow]]:
        campaigns = CampaignAdmin(database)
        added = await campaigns.add(names, terms, state)
        return added, await campaigns.find([name for name in names if name not in added])

    added, there = with_database(config, work)
    if added:
        say(f"added {count(len(added), 'campaign')}")
    refusals = Refusals()
    cancelled = [row.id for row in there if row.state == CampaignState.CANCELLED]
    refusals.tell(cancelled, "campaign", _FINAL)
    differs = [row.id for row in there if row.id not in cancelled and not _agrees(row, terms)]
    refusals.tell(
        differs, "campaign", "there already on other terms, and unchanged; change them with: shardd campaign set"
    )
    same = [row.id for row in there if row.id not in (*cancelled, *differs)]
    if same:
        say(f"there already: {some(same)}")
    refusals.finish()


@campaign_group.command("set")
@_ids
@_label
@_weight
@_device_cap
@database_config_option
def set_(
    *, ids: tuple[str, ...], label: str | None, weight: float | None, device_cap: int | None, config: Config
) -> None:
    """Change the terms of campaigns; a running shardd takes them over at once."""
    names, terms = short_names(ids, "campaign"), _terms(label, weight, device_cap)
    if terms == CampaignTerms():
        raise UsageError("say what to change: --label, --weight or --device-cap")
    zone = config.pacing.timezone
    done = with_database(config, lambda database: CampaignAdmin(database).change(names, terms, zone))
    _tell_done("changed", names, done)


@campaign_group.command("list")
@click.option(
    "--state", type=click.Choice([state.value for state in CampaignState]), help="Only campaigns in this state."
)
@click.option("--limit", type=WholeNumber(1, 100_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects; times in ISO 8601.")
@database_config_option
def list_(*, state: str | None, limit: int, as_json: bool, config: Config) -> None:
    """List campaigns, newest first."""
    wanted = None if state is None else CampaignState(state)
    rows = with_database(config, lambda database: CampaignAdmin(database).newest(limit, state=wanted))
    if as_json:
        print_json([campaign_json(row) for row in rows])
    else:
        show_campaigns(rows, limit)


@campaign_group.command("show")
@click.argument("campaign", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs, with every device; times in ISO 8601.")
@database_config_option
def show(campaign: str, as_json: bool, config: Config) -> None:
    """Show one campaign: how far it is, its rate, the time left, and what it waits for."""
    (name,) = short_names([campaign], "campaign")
    zone = config.pacing.timezone
    details = with_database(config, lambda database: CampaignAdmin(database).show(name, zone))
    if details is None:
        raise UsageError(f"campaign {name} is {_UNKNOWN}")
    if as_json:
        print_json(details_json(details))
    else:
        show_campaign(details)


@campaign_group.command("pause")
@_ids
@_why
@database_config_option
def pause(ids: tuple[str, ...], why: str | None, config: Config) -> None:
    """Hold campaigns back; their jobs wait. What a worker has in flight is finished."""
    _turn("paused", ids, CampaignState.PAUSED, why, config)


@campaign_group.command("resume")
@_ids
@database_config_option
def resume(ids: tuple[str, ...], config: Config) -> None:
    """Let paused campaigns send again."""
    _turn("resumed", ids, CampaignState.RUNNING, None, config)


@campaign_group.command("cancel")
@_ids
@click.option("--why", help="Becomes the error of its jobs.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_config_option
def cancel(ids: tuple[str, ...], why: str | None, yes: bool, config: Config) -> None:
    """End campaigns for good. Their waiting jobs are never sent; what a worker has in flight is finished.

    The jobs move to the archive as cancelled ones while shardd runs.
    """
    names = short_names(ids, "campaign")
    # Between the two steps a person may think; no connection is held for that long.
    found = with_database(config, lambda database: CampaignAdmin(database).weigh(names))
    open_ = [one for one in found if one.state != CampaignState.CANCELLED]
    if open_:
        confirm(f"Cancel {_named(open_)} for good? {_what_ends(open_)}", yes=yes)
        ended = with_database(config, lambda database: CampaignAdmin(database).cancel([one.id for one in open_], why))
        waiting = sum(one.live - one.in_flight for one in open_)
        say(f"cancelled {count(len(ended), 'campaign')} with {count(waiting, 'waiting job')}")
    before = [one.id for one in found if one.state == CampaignState.CANCELLED]
    if before:
        say(f"cancelled already: {some(before)}")
    _refuse_unknown(names, {one.id for one in found}).finish()


def _turn(word: str, ids: tuple[str, ...], state: CampaignState, why: str | None, config: Config) -> None:
    names = short_names(ids, "campaign")

    async def work(database: Database) -> tuple[set[str], list[CampaignRow]]:
        campaigns = CampaignAdmin(database)
        done = await campaigns.set_state(names, state, why)
        return done, await campaigns.find([name for name in names if name not in done])

    done, others = with_database(config, work)
    if done:
        say(f"{word} {count(len(done), 'campaign')}")
    refusals = _refuse_unknown(names, done | {row.id for row in others})
    refusals.tell([row.id for row in others], "campaign", _FINAL)
    refusals.finish()


def _terms(label: str | None, weight: float | None, device_cap: int | None) -> CampaignTerms:
    return CampaignTerms(label=label, weight=weight, device_cap=device_cap)


def _agrees(row: CampaignRow, terms: CampaignTerms) -> bool:
    """Whether a campaign is what `add` with these terms would have made."""
    weight = 1.0 if terms.weight is None else terms.weight
    return (row.label, row.weight, row.device_cap) == (terms.label or None, weight, terms.device_cap or None)


def _named(campaigns: list[WeighedCampaign]) -> str:
    names = some([one.id for one in campaigns])
    return f"campaign {names}" if len(campaigns) == 1 else f"{count(len(campaigns), 'campaign')} {names}"


def _what_ends(campaigns: list[WeighedCampaign]) -> str:
    in_flight = sum(one.in_flight for one in campaigns)
    waiting = sum(one.live for one in campaigns) - in_flight
    words = f"{count(waiting, 'waiting job')} {'ends' if waiting == 1 else 'end'} unsent"
    return words + (f", {in_flight:,} with a worker {'is' if in_flight == 1 else 'are'} finished" if in_flight else "")


def _tell_done(word: str, names: list[str], done: set[str]) -> None:
    if done:
        say(f"{word} {count(len(done), 'campaign')}")
    _refuse_unknown(names, done).finish()


def _refuse_unknown(names: list[str], found: set[str]) -> Refusals:
    refusals = Refusals()
    refusals.tell([name for name in names if name not in found], "campaign", _UNKNOWN)
    return refusals
