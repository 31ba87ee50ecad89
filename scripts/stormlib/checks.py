"""What must hold between the records of a storm. Each check returns what contradicts it, in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from stormlib.records import Delivery, Records, Row, Visit

FINAL = frozenset({"sent", "failed", "cancelled", "expired", "opted_out", "in_doubt"})

SLACK = 0.5
"""Seconds by which the server may see the end of a connection late."""


@dataclass(frozen=True)
class Finding:
    """A broken promise."""

    promise: str
    text: str


def check(records: Records) -> list[Finding]:
    """All findings."""
    checks = {
        "nothing is lost": _lost,
        "everything ends": _unfinished,
        "nothing is delivered twice": _twice,
        "what is sent was delivered": _claimed,
        "what was delivered is sent or in doubt": _hidden,
        "only what nobody can know is in doubt": _needless_doubts,
        "what nobody can know is in doubt": _missing_doubts,
        "a lane keeps its order": _lanes,
        "an order group keeps its order": _order_groups,
        "a device has one client": _clients,
        "no device is parked for what a node did": _parked,
        "nothing is sent to who has opted out": _opted_out,
        "a job of a device group is sent by one of its devices": _device_groups,
        "a paused campaign's jobs are not claimed": _pauses,
        "what an operator decided stays so": _decisions,
    }
    return [Finding(promise, text) for promise, texts in checks.items() for text in texts(records)]


def _lost(records: Records) -> Iterator[str]:
    found = Counter(row.reference for row in records.rows)
    for reference, at in records.confirmed.items():
        if reference not in found and not records.forgotten(at):
            yield f"{reference} was confirmed, and there is no such job"
    for reference, times in found.items():
        if times > 1:
            yield f"{reference} is in {times} jobs"
        if reference not in records.asked:
            yield f"{reference} was never asked for"


def _unfinished(records: Records) -> Iterator[str]:
    for row in records.rows:
        if row.state not in FINAL and not (row.waits_for or "").endswith("of its order group, which is in_doubt"):
            yield f"job {row.id} ({row.reference}) is {row.state}, and waits for {row.waits_for}: {row.error}"


def _twice(records: Records) -> Iterator[str]:
    for reference, deliveries in _by_reference(records).items():
        asked = records.asked.get(reference)
        risked = asked is not None and asked.on_doubt == "retry"
        if len(deliveries) > 1 and not risked and not _forgotten_by_all(records, reference, deliveries):
            said = ", ".join(f"{one.at:.3f} by {one.by} (attempt {one.attempt})" for one in deliveries)
            yield f"{reference} was delivered {len(deliveries)} times: {said}"


def _forgotten_by_all(records: Records, reference: str, deliveries: list[Delivery]) -> bool:
    """Whether nobody could know of the first copy: neither the database, nor whoever sent the second.

    Its insert was repeated, as another job, because its answer was lost; or its node was away when the database forgot it.
    """
    begun, confirmed = records.begun.get(reference, 0.0), records.confirmed.get(reference, float("inf"))
    first, *others = sorted(deliveries, key=lambda one: one.at)
    for setback in records.setbacks:
        if begun <= setback.end < confirmed:
            return True
        if setback.overlaps(first.at, first.at) and all(one.by != first.by for one in others):
            return any(away.node == first.by and away.overlaps(setback.begin, others[0].at) for away in records.away)
    return False


def _claimed(records: Records) -> Iterator[str]:
    delivered = _by_reference(records)
    for row in records.rows:
        if row.state == "sent" and row.reference not in delivered:
            yield f"job {row.id} ({row.reference}) is sent, and was never delivered"


def _hidden(records: Records) -> Iterator[str]:
    """A job that risks a second copy may end otherwise after the first."""
    delivered = _by_reference(records)
    for row in records.rows:
        asked = records.asked.get(row.reference)
        risked = asked is not None and asked.on_doubt == "retry" and row.state in ("cancelled", "opted_out")
        if row.state not in ("sent", "in_doubt") and row.reference in delivered and not risked:
            yield f"job {row.id} ({row.reference}) is {row.state}, and was delivered: {row.error}"


def _needless_doubts(records: Records) -> Iterator[str]:
    for row in records.rows:
        if row.state != "in_doubt":
            continue
        started = [claim for claim in records.starts(row) if claim[2] == row.attempt]
        if not started:
            yield f"job {row.id} ({row.reference}) is in doubt, and attempt {row.attempt} never started: {row.error}"
        for claim in started:
            verdict = records.witness.outcomes.get(claim, "in_doubt")
            if verdict != "in_doubt":
                yield f"job {row.id} ({row.reference}) is in doubt, and its worker knew that it was {verdict}: {row.error}"


def _missing_doubts(records: Records) -> Iterator[str]:
    """What was handed over without an answer does not go again, unless its producer risked that; a receipt may prove it sent.

    An operator may have found out that it was not sent.
    """
    unanswered = records.witness.handed_over - records.witness.ending
    for row in records.rows:
        asked = records.asked.get(row.reference)
        if asked is None or asked.on_doubt == "retry":
            continue
        decision = records.acts.decisions.get(row.id)
        for claim in records.starts(row):
            if decision is not None and decision.state in ("failed", "queued") and decision.attempt == claim[2]:
                continue
            if claim in unanswered and (row.attempt != claim[2] or row.state not in ("in_doubt", "sent")):
                attempt = f"attempt {claim[2]} was handed over without an answer"
                yield f"job {row.id} ({row.reference}) is {row.state} after attempt {row.attempt}, and {attempt}"


def _lanes(records: Records) -> Iterator[str]:
    """By the start of each: one that was frozen after it had started is delivered late, and nobody can prevent that.

    Only jobs that were sent at their first attempt: one that goes back to the queue may be overtaken meanwhile, such as a claim
    of a lost node, which nobody else can know not to have started. So may one that was cancelled and retried, and one that waits
    for a device of its group, and one whose first attempt the database forgot.
    """
    lanes: defaultdict[tuple[str | None, str | None], list[tuple[float, int, float, str]]] = defaultdict(list)
    for row in records.rows:
        asked = records.asked.get(row.reference)
        if asked is None or asked.order_group or asked.device_group or row.state != "sent" or row.attempt != 1:
            continue
        if row.id in records.acts.decisions or _is_set_back(records, row):
            continue
        if (start := _start(records, row)) is not None:
            lanes[row.device, asked.campaign].append((row.run_at, row.id, start, row.reference))
    for (device, campaign), jobs in lanes.items():
        for (*_, before, first), (*_, after, second) in pairwise(sorted(jobs)):
            if after < before:
                late = before - after
                yield f"{second} started {late:.3f} s before {first}, on {device} in the lane of {campaign or 'no campaign'}"


def _order_groups(records: Records) -> Iterator[str]:
    delivered, groups = _by_reference(records), defaultdict[str, list[Row]](list)
    for row in records.rows:
        asked = records.asked.get(row.reference)
        if asked is not None and asked.order_group:
            groups[asked.order_group].append(row)
    for group, rows in groups.items():
        for before, after in pairwise(rows):
            starts = records.starts(after).values()
            if not starts or after.reference not in delivered:
                continue
            if before.state != "sent":
                yield f"{after.reference} was delivered, and {before.reference} before it in {group} is {before.state}"
            late = [one.at - min(starts) for one in delivered.get(before.reference, ()) if one.at > min(starts)]
            if late:
                yield f"{before.reference} was delivered {max(late):.3f} s after {after.reference} in {group} had started"


def _clients(records: Records) -> Iterator[str]:
    """No node logs a device in while another one may send with it.

    The kernel closes the connections of a process that is killed, also of one that was stopped (SIGSTOP) before, and a network
    that is cut ends them: only one that holds back everything lets the server see an end late.
    """
    of_device: defaultdict[str, list[Visit]] = defaultdict(list)
    for visit in sorted(records.visits, key=lambda one: one.begin):
        of_device[visit.device].append(visit)
    for device, visits in of_device.items():
        for number, visit in enumerate(visits):
            for before in visits[:number]:
                if before.end <= visit.begin + SLACK or before.by == visit.by:
                    continue
                if any(hold.node == before.by and hold.begin <= visit.begin <= hold.end for hold in records.holds):
                    continue
                text = f"{visit.by} logged {device} in at {visit.begin:.3f}, with a client of {before.by} still open"
                yield f"{text} since {before.begin:.3f}, until {before.end:.3f}"


def _parked(records: Records) -> Iterator[str]:
    for device, state, reason in records.parked:
        yield f"{device} is {state}: {reason}"


def _opted_out(records: Records) -> Iterator[str]:
    """An opt-out ends a new job when it is inserted, and one that waits when it is claimed; what is claimed already may leave."""
    delivered = _by_reference(records)
    for row in records.rows:
        asked = records.asked.get(row.reference)
        since = records.opted_out.get(asked.recipient) if asked is not None else None
        if since is None or records.forgotten(since):
            continue
        about = f"job {row.id} ({row.reference}) to {asked.recipient if asked else ''}, opted out at {since:.3f},"
        if row.created_at > since and (row.state != "opted_out" or row.attempt):
            yield f"{about} was inserted at {row.created_at:.3f}, and is {row.state} after {row.attempt} attempts"
        for one in delivered.get(row.reference, ()):
            if row.claimed_at is not None and since < row.claimed_at < one.at:
                yield f"{about} was claimed at {row.claimed_at:.3f} and delivered at {one.at:.3f}"


def _device_groups(records: Records) -> Iterator[str]:
    for row in records.rows:
        asked = records.asked.get(row.reference)
        if asked is None or asked.device_group is None or row.state not in ("sent", "in_doubt"):
            continue
        if row.device not in records.groups[asked.device_group]:
            yield f"job {row.id} ({row.reference}) is {row.state} by {row.device}, which is not in {asked.device_group}"


def _pauses(records: Records) -> Iterator[str]:
    for row in records.rows:
        asked = records.asked.get(row.reference)
        for pause in records.acts.pauses:
            if asked is None or asked.campaign != pause.campaign or row.claimed_at is None:
                continue
            if any(setback.overlaps(pause.begin, pause.end) for setback in records.setbacks):
                continue
            if pause.begin < row.claimed_at < pause.end:
                text = f"{pause.campaign} was paused from {pause.begin:.3f} to {pause.end:.3f}"
                yield f"job {row.id} ({row.reference}) was claimed at {row.claimed_at:.3f}, and {text}"


def _decisions(records: Records) -> Iterator[str]:
    rows = {row.id: row for row in records.rows}
    for job, decision in records.acts.decisions.items():
        row = rows.get(job)
        if records.forgotten(decision.at):
            continue
        if row is None:
            yield f"job {job} became {decision.state} by an operator, and there is no such job"
        elif decision.state == "queued":
            if row.state in ("cancelled", "failed") and row.attempt == decision.attempt:
                yield f"job {job} ({row.reference}) was retried, and is {row.state} without another attempt"
        elif row.state != decision.state or (decision.state != "cancelled" and row.attempt != decision.attempt):
            became = f"became {decision.state} by an operator after attempt {decision.attempt}"
            yield f"job {job} ({row.reference}) {became}, and is {row.state} after attempt {row.attempt}"


def _is_set_back(records: Records, row: Row) -> bool:
    """Whether the database may have forgotten an attempt of it."""
    claimed_at = row.claimed_at or 0.0
    return any(row.created_at <= setback.end and claimed_at >= setback.begin for setback in records.setbacks)


def _start(records: Records, row: Row) -> float | None:
    """When the attempt that was delivered started."""
    starts = [at for claim, at in records.starts(row).items() if claim[2] == row.attempt]
    return min(starts) if starts else None


def _by_reference(records: Records) -> dict[str, list[Delivery]]:
    found: defaultdict[str, list[Delivery]] = defaultdict(list)
    for delivery in records.deliveries:
        found[delivery.reference].append(delivery)
    return dict(found)
