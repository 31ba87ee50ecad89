"""Campaigns as people and programs see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.progress_bar import ProgressBar

from shardd.cli.campaign.progress import Progress, progress_of
from shardd.cli.output import (
    Table,
    Text,
    ago,
    count,
    make_console,
    make_facts,
    make_grid,
    make_table,
    moment_text,
    span,
    state_text,
)
from shardd.queue.campaigns import CampaignDetails, CampaignRow, CampaignState, DeviceShare
from shardd.states import FINISHED, JobState

WIDE: Final = 110
TOP: Final = 10
"""Devices that are shown one by one."""
NARROW: Final = 70
"""Columns below which a device's troubles are left to `--json`."""
BAR: Final = 30
"""Columns of the bar."""
_STEPS: Final = (JobState.QUEUED, JobState.SCHEDULED, JobState.SENDING)


def campaign_json(row: CampaignRow) -> dict[str, Any]:
    """What `--json` prints of a campaign in a list."""
    return dataclasses.asdict(row)


def details_json(details: CampaignDetails) -> dict[str, Any]:
    """What `--json` prints of one campaign: its row, its progress, and every device and pool of it."""
    progress = progress_of(details, datetime.now(UTC))
    return campaign_json(details.row) | {
        "progress": dataclasses.asdict(progress) | {"percent": round(progress.percent, 2)},
        "devices": [dataclasses.asdict(share) for share in details.shares],
        "pools": [dataclasses.asdict(pool) for pool in details.pools],
    }


def show_campaigns(rows: Sequence[CampaignRow], limit: int) -> None:
    """A table, and below it what it leaves out."""
    console = make_console()
    if not rows:
        console.print("no such campaigns; begin one with: shardd campaign add ID")
        return
    wide = console.width >= WIDE
    extra = ["weight", "cap", "label"] if wide else []
    table = make_table(
        *("id", "state", "jobs left", "in 10 min", "last sent", *extra, "why"),
        right=("jobs left", "in 10 min", "weight", "cap"),
        whole=("state", "last sent"),
    )
    for row in rows:
        cells = [Text(row.id), state_text(row.state), Text(f"{row.live:,}"), Text(f"{row.sent_lately:,}")]
        cells.append(Text(ago(row.last_sent)))
        if wide:
            cap = "-" if row.device_cap is None else f"{row.device_cap:,}"
            cells += [Text(f"{row.weight:g}"), Text(cap), Text(row.label or "")]
        table.add_row(*cells, Text(row.why or ""))
    console.print(table)
    more = "; older ones: --limit" if len(rows) == limit else ""
    console.print(Text(count(len(rows), "campaign") + more, "dim"))


def show_campaign(details: CampaignDetails) -> None:
    """One campaign, line by line, and its devices with the most work."""
    console = make_console()
    row, progress = details.row, progress_of(details, datetime.now(UTC))
    state = state_text(row.state)
    if row.state != CampaignState.RUNNING:
        state.append(f" since {moment_text(row.state_since)}", "default")
    rows: list[tuple[str, Table | Text | str]] = [
        ("campaign", row.id),
        ("label", row.label or ""),
        ("state", state),
        ("why", row.why or ""),
        ("to do", _to_do(row)),
        ("waits for", Text(progress.waits_for or "", "yellow")),
        ("held back", _held_back(progress)),
        ("progress", _bar(progress)),
        ("waiting", _numbers(progress, _STEPS)),
        ("ended", _numbers(progress, [state for state in JobState if state in FINISHED])),
        ("rate", _rate(progress) if row.state == CampaignState.RUNNING else ""),
        ("time left", _time_left(progress)),
        ("weight", f"{row.weight:g}"),
        ("cap", "" if row.device_cap is None else f"{count(row.device_cap, 'message')} per device and day"),
        ("first sent", moment_text(progress.first_sent)),
        ("last sent", moment_text(progress.last_sent)),
        ("added", moment_text(row.created_at)),
    ]
    console.print(make_facts(rows))
    for pool in details.pools:
        able = f"{pool.able} of its {count(pool.devices, 'device')} can send"
        console.print(Text(f"{count(pool.jobs, 'job')} in the pool of group {pool.device_group}; {able}"))
    devices = [share for share in details.shares if share.device_id is not None]
    if devices:
        console.print()
        console.print(_devices(devices[:TOP], row.device_cap, narrow=console.width < NARROW))
    if len(devices) > TOP:
        console.print(Text(f"and {count(len(devices) - TOP, 'more device')}; all of them: --json", "dim"))


def _devices(shares: Sequence[DeviceShare], cap: int | None, *, narrow: bool) -> Table:
    headers = ["device", "state", "sent", *(["today"] if cap is not None else []), "waiting"]
    troubles = [] if narrow else ["failed", "in doubt", "last sent"]
    table = make_table(
        *headers, *troubles, right=("sent", "today", "waiting", "failed", "in doubt"), whole=("state", "last sent")
    )
    for share in shares:
        cells = [Text(share.device_id or ""), state_text(share.device_state or "unknown"), Text(f"{share.sent:,}")]
        if cap is not None:
            cells.append(Text(f"{share.sent_today:,}/{cap:,}", "yellow" if share.sent_today >= cap else ""))
        cells.append(Text(f"{share.waiting + share.sending:,}"))
        if not narrow:
            cells += [
                Text(f"{share.failed:,}", "red" if share.failed else ""),
                Text(f"{share.in_doubt:,}", "bold yellow" if share.in_doubt else ""),
                Text(ago(share.last_sent)),
            ]
        table.add_row(*cells)
    return table


def _bar(progress: Progress) -> Table | str:
    if not progress.total:
        return ""
    grid = make_grid(1)
    words = f"{_percent(progress)} of {count(progress.total, 'job')}"
    grid.add_row(ProgressBar(progress.total, progress.ended, width=BAR), words)
    return grid


def _percent(progress: Progress) -> str:
    """Never 100 % while something is left, and never 0 when something has ended."""
    shown = f"{progress.percent:.1f}"
    if progress.ended < progress.total and shown == "100.0":
        shown = "99.9"
    elif progress.ended and shown == "0.0":
        shown = "<0.1"
    return f"{shown.removesuffix('.0')} %"


def _numbers(progress: Progress, states: Sequence[JobState]) -> Text:
    words = Text()
    for state in states:
        if number := progress.states[state]:
            words.append(", " if words else "").append(f"{number:,} ").append_text(state_text(state.value))
    return words


def _rate(progress: Progress) -> str:
    return f"{progress.rate:,.1f} messages a minute" if progress.rate else ""


def _time_left(progress: Progress) -> str:
    if progress.seconds_left is None:
        return ""
    without = " for those that are not held back" if progress.held_back else ""
    return f"about {span(progress.seconds_left)} at this rate{without}"


def _held_back(progress: Progress) -> Text:
    if not progress.held_back or progress.waits_for == progress.held_back_by:
        return Text()
    return Text(f"{count(progress.held_back, 'job')}: {progress.held_back_by}", "yellow")


def _to_do(row: CampaignRow) -> str:
    return f"let it send again: shardd campaign resume {row.id}" if row.state == CampaignState.PAUSED else ""
