"""Progress of a campaign: totals, rate, time left, and what holds it back. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

from shardd.queue.campaigns import CampaignDetails, CampaignState, DeviceShare
from shardd.states import CAN_SEND, FINISHED, JobState
from shardd.words import ago, count, span

WINDOW: Final = 600.0
"""Seconds that the rate is measured over, as `sent_lately` is."""
SHORTEST: Final = 60.0
"""Shortest such time, because a single message has no rate; without a message for so long, a campaign is not moving."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign's totals at one moment."""

    states: dict[JobState, int]
    total: int
    ended: int
    rate: float
    """Messages a minute over the last ten minutes, or since the first one."""
    seconds_left: float | None
    """For the jobs whose devices can send, at this rate; None: unknown."""
    waits_for: str | None
    """What the whole campaign waits for; None: nothing, or no job is left."""
    held_back: int
    """Waiting jobs whose devices cannot send, or have sent the campaign's cap."""
    held_back_by: str | None
    first_sent: datetime | None
    last_sent: datetime | None

    @property
    def percent(self) -> float:
        """Share of the jobs that have ended; 0 without jobs."""
        return 100 * self.ended / self.total if self.total else 0.0

    @property
    def percent_text(self) -> str:
        """Never 100 % while something is left, and never 0 when something has ended."""
        shown = f"{self.percent:.1f}"
        if self.ended < self.total and shown == "100.0":
            shown = "99.9"
        elif self.ended and shown == "0.0":
            shown = "<0.1"
        return f"{shown.removesuffix('.0')} %"

    @property
    def time_left(self) -> str:
        """In words; empty: unknown."""
        if self.seconds_left is None:
            return ""
        without_held = " for those that are not held back" if self.held_back else ""
        return f"about {span(self.seconds_left)} at this rate{without_held}"


def campaign_json(details: CampaignDetails, progress: Progress) -> dict[str, Any]:
    """A campaign with its progress, devices and pools, for programs."""
    return {
        **asdict(details.row),
        "progress": asdict(progress) | {"percent": round(progress.percent, 2)},
        "devices": details.shares,
        "pools": details.pools,
        "revocations": details.revocations,
    }


def progress_of(details: CampaignDetails, now: datetime) -> Progress:
    """Totals over a campaign's devices; `now` has a time zone."""
    shares = details.shares
    states = {state: sum(getattr(share, state) for share in shares) for state in JobState}
    total = sum(states.values())
    ended = sum(states[state] for state in FINISHED)
    first = min((share.first_sent for share in shares if share.first_sent), default=None)
    rate = _rate(sum(share.sent_lately for share in shares), first, now)
    obstacles, held_back = _obstacles(details)
    movable = total - ended - held_back
    moves = details.row.state == CampaignState.RUNNING and rate > 0
    progress = Progress(
        states=states,
        total=total,
        ended=ended,
        rate=rate,
        seconds_left=60 * movable / rate if moves and movable else None,
        waits_for=None,
        held_back=held_back,
        held_back_by=obstacles,
        first_sent=first,
        last_sent=max((share.last_sent for share in shares if share.last_sent), default=None),
    )
    return replace(progress, waits_for=_waits_for(details, progress, now))


def _rate(sent_lately: int, first_sent: datetime | None, now: datetime) -> float:
    if first_sent is None:
        return 0.0
    return 60 * sent_lately / min(WINDOW, max(SHORTEST, (now - first_sent).total_seconds()))


def _obstacles(details: CampaignDetails) -> tuple[str | None, int]:
    """What holds devices back, in words, and how many jobs that concerns."""
    cap = details.row.device_cap
    held = [(share, why) for share in details.shares if share.waiting and (why := _obstacle(share, cap))]
    words = [f"{count(number, 'device')} {why}" for why, number in Counter(why for _, why in held).most_common()]
    stuck = [pool for pool in details.pools if not pool.able]
    words += [f"group {pool.device_group}: 0 of {count(pool.devices, 'device')} can send" for pool in stuck]
    return ", ".join(words) or None, sum(share.waiting for share, _ in held) + sum(pool.jobs for pool in stuck)


def _obstacle(share: DeviceShare, cap: int | None) -> str | None:
    if share.device_id is None:
        return None
    if share.device_state not in CAN_SEND:
        return share.device_state or "unknown"
    return f"at the cap of {cap} a day" if cap is not None and share.sent_today >= cap else None


def _waits_for(details: CampaignDetails, progress: Progress, now: datetime) -> str | None:
    states, row = progress.states, details.row
    live = progress.total - progress.ended
    if row.state == CampaignState.CANCELLED:
        return "nothing: it was cancelled, and its jobs end while shardd runs" if live else None
    if row.state == CampaignState.PAUSED:
        return "a person: it is paused" + (f", {row.why}" if row.why else "")
    if not live:
        return None if progress.total else "its first job"
    return None if states[JobState.SENDING] else _idle_reason(details, progress, now)


def _idle_reason(details: CampaignDetails, progress: Progress, now: datetime) -> str | None:
    """What the jobs wait for while none is in flight."""
    if progress.held_back == progress.total - progress.ended:
        return progress.held_back_by
    if not progress.states[JobState.QUEUED]:
        return _time_of(details.shares, now)
    moving = progress.last_sent is not None and (now - progress.last_sent).total_seconds() < SHORTEST
    return None if moving else "the turns of its devices; when one may send: shardd device show ID"


def _time_of(shares: Sequence[DeviceShare], now: datetime) -> str:
    due = min((share.next_due for share in shares if share.next_due), default=None)
    if due is None:
        return "the jobs before its own in their order groups"
    return f"the time of its jobs: the next one is due {ago(due, now)}" if due > now else "its turn"
