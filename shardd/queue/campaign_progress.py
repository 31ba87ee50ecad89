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

SHORTEST: Final = 60.0
"""Shortest time in seconds that a rate is measured over, and for which a campaign without a message may still be moving."""
DAY: Final = 86400.0
HOUR: Final = 3600.0
STILL: Final = 3.0
"""A campaign is not moving after so many times its mean pause between two messages, if that is longer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign's totals at one moment."""

    states: dict[JobState, int]
    total: int
    ended: int
    rate: float
    """Messages a minute, from the first to the last of the ten minutes before the count; 0: not known."""
    rate_over: float
    """The seconds that this is measured over."""
    moves: bool
    """It is running, has just sent, and has more that is not held back."""
    seconds_left: float | None
    """At least, for the jobs that are not held back, at this rate and with the cap; None: unknown, or nothing moves."""
    waits_for: str | None
    """What the whole campaign waits for; None: nothing, or no job is left."""
    held_back: int
    """Waiting jobs whose devices cannot send, have sent the campaign's cap, or wait for more than a gap."""
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
    def rate_text(self) -> str:
        """While it moves, in words."""
        if not self.moves:
            return ""
        return f"{self.rate:,.1f} messages a minute, over the last {span(self.rate_over)}"

    @property
    def time_left(self) -> str:
        """In words; empty: unknown."""
        if self.seconds_left is None:
            return ""
        without_held = " for those that are not held back" if self.held_back else ""
        words = f"at least {span(self.seconds_left)}{without_held} at this rate"
        return f"{words}; limits and quiet hours of the devices make it longer"


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
    last = max((share.last_sent for share in shares if share.last_sent), default=None)
    rate, over = _rate(shares, last)
    obstacles, held_back = _obstacles(details)
    movable = total - ended - held_back
    running = details.row.state == CampaignState.RUNNING
    moves = (
        running
        and movable > 0
        and rate > 0
        and last is not None
        and _since(last, now) < max(SHORTEST, STILL * 60 / rate)
    )
    progress = Progress(
        states=states,
        total=total,
        ended=ended,
        rate=rate,
        rate_over=over,
        moves=moves,
        seconds_left=max(60 * movable / rate, least_by_cap(details)) if moves else None,
        waits_for=None,
        held_back=held_back,
        held_back_by=obstacles,
        first_sent=min((share.first_sent for share in shares if share.first_sent), default=None),
        last_sent=last,
    )
    return replace(progress, waits_for=_waits_for(details, progress, now))


def least_by_cap(details: CampaignDetails) -> float:
    """Seconds for which the cap alone holds back the last job of a device that is not held back yet.

    When a device's day ends is not known: today, and the day of the last job, may be as short as nothing. Of the days between
    them, one may have 23 hours.
    """
    cap = details.row.device_cap
    if cap is None:
        return 0.0
    held = (_days_of_cap(share, cap) for share in details.shares if share.waiting and _obstacle(share, cap) is None)
    days = max(held, default=0)
    return max(0.0, DAY * (days - 1) - HOUR)


def _days_of_cap(share: DeviceShare, cap: int) -> int:
    """On how many days after today a device sends what waits for it."""
    if share.device_id is None:
        return 0  # any device of the group may send it
    return max(0, -(-(share.waiting + share.sent_today - cap) // cap))


def _rate(shares: Sequence[DeviceShare], last: datetime | None) -> tuple[float, float]:
    """Messages a minute while it sent, and the seconds that this is measured over; a pause before or after does not count."""
    sent = sum(share.sent_lately for share in shares)
    first = min((share.first_lately for share in shares if share.first_lately), default=None)
    if first is None or last is None or sent < 2:
        return 0.0, 0.0  # a single message has no rate
    over = (last - first).total_seconds()
    # Between the first and the last lies one pause fewer than there are messages.
    return (60 * (sent - 1) / over, over) if over >= SHORTEST else (60 * sent / SHORTEST, SHORTEST)


def _since(moment: datetime, now: datetime) -> float:
    return (now - moment).total_seconds()


def _obstacles(details: CampaignDetails) -> tuple[str | None, int]:
    """What holds devices back, in words, and how many jobs that concerns."""
    cap = details.row.device_cap
    held = [(share, why) for share in details.shares if share.waiting and (why := _obstacle(share, cap))]
    words = [f"{count(number, 'device')} {why}" for why, number in Counter(why for _, why in held).most_common()]
    others = {share.device_id for share, _ in held}
    slow = [share for share in details.shares if share.lane_waits and share.device_id not in others]
    words += _lane_words(slow)
    stuck = [pool for pool in details.pools if not pool.able]
    words += [f"group {pool.device_group}: 0 of {count(pool.devices, 'device')} can send" for pool in stuck]
    jobs = sum(share.waiting for share, _ in held) + sum(share.lane_waits for share in slow)
    return ", ".join(words) or None, jobs + sum(pool.jobs for pool in stuck)


def _lane_words(shares: Sequence[DeviceShare]) -> list[str]:
    """`3 devices wait for: its daily limit, until 2026-03-01 22:00 UTC`, for each reason, with the first moment that one ends."""
    by_why: dict[str, list[DeviceShare]] = {}
    for share in shares:
        by_why.setdefault((share.lane_why or "").partition(" (")[0], []).append(share)
    words = []
    for why, some in sorted(by_why.items(), key=lambda one: -len(one[1])):
        until = min((share.lane_until for share in some if share.lane_until), default=None)
        ends = "" if until is None else f", {'the first ' if len(some) > 1 else ''}until {until:%Y-%m-%d %H:%M} UTC"
        words.append(f"{count(len(some), 'device waits', 'devices wait')} for: {why}{ends}")
    return words


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
    moving = progress.last_sent is not None and _since(progress.last_sent, now) < SHORTEST
    return None if moving else "the turns of its devices; when one may send: shardd device show ID"


def _time_of(shares: Sequence[DeviceShare], now: datetime) -> str:
    due = min((share.next_due for share in shares if share.next_due), default=None)
    if due is None:
        return "the jobs before its own in their order groups"
    return f"the time of its jobs: the next one is due {ago(due, now)}" if due > now else "its turn"
