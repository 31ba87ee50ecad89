"""The queue's statements with a real server: order, fences, races, and lookups."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shardd.errors import DatabaseError
from shardd.ipc import Outcome, Receipt
from shardd.queue.cycle import Cycle, Settlement
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin
from shardd.queue.job_admin import JobAdmin, Traits
from shardd.queue.jobs import Counts, Jobs
from shardd.queue.lane_waits import LaneWaits
from shardd.queue.records import ClaimRequest, Sends, WorkHint
from shardd.queue.settle import Claim, Finish, JobBackoff, Release, resolve, settle
from shardd.states import JobState, Verdict
from shardd.supervisor.scheduling.device_queue import FIRST_POSITION
from tests.fixtures.postgres import Cluster
from tests.support.queue_rows import (
    add_campaigns,
    add_devices,
    claim,
    connect,
    find_work,
    finish,
    insert_jobs,
    release,
    row_of,
    states,
    take_epoch,
)

LANE = "/marketing"
RUN = uuid4()
"""The supervisor that has the lease."""
HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging
PAST = "2026-01-01 00:00:00+00"


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
async def epoch(dsn: str, database: Database) -> int:
    add_devices(dsn, "a", "b", "c")
    return await take_epoch(database, incarnation=RUN)


def claims_of(cycle: Cycle) -> list[Claim]:
    return [taken.claim for taken in cycle.claimed]


def ids_of(hints: list[WorkHint]) -> list[int]:
    """The jobs that stand where the hints say, in the order of their lanes."""
    return [place[1] for _, _, place in sorted(hints, key=lambda hint: hint[2])]


def firsts_of(hints: list[WorkHint]) -> dict[str, int]:
    """Which job is the first of each device; every job is in the same lane."""
    assert {lane for _, lane, _ in hints} <= {LANE}
    return {device: place[1] for device, _, place in hints}


async def one_by_one(jobs: Jobs, epoch: int, device: str) -> list[int]:
    """Sends everything that a device has in line, one after the other; the ids in that order."""
    order = []
    while claims := await claim(jobs, epoch, device):
        (first,) = claims
        order.append(first.id)
        await jobs.cycle(finish(first), [])
    return order


async def retry(database: Database, job: int) -> bool:
    """Whether an operator brought it back into the queue."""
    return [one.done async for chunk in JobAdmin(database).retry(Traits(), [job]) for one in chunk] == [True]


# ---- claiming


async def test_a_claim_brings_the_whole_job(dsn: str, jobs: Jobs, epoch: int) -> None:
    (job,) = insert_jobs(
        dsn, "a", kind="image", body="caption", media="https://x/y", file_name="y.png", mime_type="image/png",
        max_attempts=3, on_doubt="retry",
    )  # fmt: skip
    insert_jobs(dsn, "a", details='{"link_preview": true}')
    cycle = await jobs.cycle(Settlement(), [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 2)])
    taken, preview = sorted(cycle.claimed, key=lambda one: one.spec.id)
    spec, its_claim = taken.spec, taken.claim
    assert (spec.id, spec.epoch, spec.attempt, spec.device_id, spec.recipient) == (job, epoch, 1, "a", "+6281234567")
    assert (spec.kind, spec.body, spec.media, spec.file_name, spec.mime_type) == (
        "image", "caption", "https://x/y", "y.png", "image/png",
    )  # fmt: skip
    assert preview.spec.details == '{"link_preview": true}'
    assert its_claim == Claim(
        job, epoch, 1, its_claim.token, "a", 0, 3, "retry", its_claim.ord, LANE, None, "6281234567"
    )
    assert row_of(dsn, job)["state"] == "sending"


async def test_jobs_leave_in_the_order_of_priority_time_and_id(dsn: str, jobs: Jobs, epoch: int) -> None:
    keys = []
    for priority in (0, 5, -5):
        for moment in ("2026-03-01 00:00:00+00", "2026-02-01 00:00:00+00"):
            keys += [
                ((-priority, moment, job), job) for job in insert_jobs(dsn, "a", 2, priority=priority, run_at=moment)
            ]
    insert_jobs(dsn, "b", priority=100)
    assert await one_by_one(jobs, epoch, "a") == [job for _, job in sorted(keys)]


async def test_several_jobs_of_a_device_come_in_the_order_of_its_line(dsn: str, jobs: Jobs, epoch: int) -> None:
    low = insert_jobs(dsn, "a", 5)
    high = insert_jobs(dsn, "a", 5, priority=1)
    assert [c.id for c in await claim(jobs, epoch, "a", room=7)] == high + low[:2]


async def test_the_order_survives_backoffs_promotions_and_retries(
    dsn: str, database: Database, jobs: Jobs, epoch: int
) -> None:
    first, second, third, fourth = insert_jobs(dsn, "a", 4, run_at=PAST)
    (urgent,) = insert_jobs(dsn, "a", priority=1)
    (later,) = insert_jobs(dsn, "a", run_at=datetime.fromtimestamp(time.time() + 3600, UTC))
    claims = {c.id: c for c in await claim(jobs, epoch, "a", room=5)}
    await jobs.cycle(release(claims[first], due_at=time.time() - 1, failures=1), [])
    await jobs.cycle(release(claims[third]), [])
    await jobs.cycle(release(claims[urgent], due_at=time.time() - 1, failures=1), [])
    await jobs.cycle(finish(claims[second], JobState.FAILED), [])
    await jobs.cycle(release(claims[fourth]), [])
    assert ids_of((await jobs.promote_due(100))[1]) == [urgent, first]
    assert await retry(database, second)
    assert await one_by_one(jobs, epoch, "a") == [urgent, first, second, third, fourth]
    assert row_of(dsn, later)["state"] == "scheduled"


async def test_a_claim_begins_where_the_line_is_known_to_begin(dsn: str, jobs: Jobs, epoch: int) -> None:
    first, second, third = insert_jobs(dsn, "a", 3, run_at=PAST)
    ((_, lane, place),) = await find_work(jobs)
    assert (lane, place[1]) == (LANE, first)
    cycle = await jobs.cycle(Settlement(), [ClaimRequest("a", LANE, epoch, (place[0], second), 5)])
    assert [c.id for c in claims_of(cycle)] == [second, third]


async def test_what_is_too_late_is_not_claimed(dsn: str, jobs: Jobs, epoch: int) -> None:
    (late, *_) = insert_jobs(dsn, "a", 2, run_at=PAST, expires_at="2090-01-01 00:00:00+00")
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.jobs SET expires_at = now() WHERE id = %s", [late])
    (its_claim,) = await claim(jobs, epoch, "a", room=2)
    assert its_claim.id == late + 1
    assert await jobs.expire(100) == 1
    assert row_of(dsn, late)["state"] == "expired"


async def test_a_claim_says_who_opted_out_meanwhile(dsn: str, jobs: Jobs, epoch: int) -> None:
    first, second, third = (insert_jobs(dsn, "a", recipient=f"+62 812-345-67{n}")[0] for n in range(3))
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.opt_outs (address, recipient) SELECT address, recipient FROM shardd.jobs"
            " WHERE id = ANY (%s)",
            [[first, third]],
        )
    cycle = await jobs.cycle(Settlement(), [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 5)])
    assert {taken.claim.id: taken.opted_out for taken in cycle.claimed} == {first: True, second: False, third: True}
    assert [claim.address for claim in claims_of(cycle)] == ["62812345670", "62812345671", "62812345672"]


async def test_a_claim_of_one_tells_where_the_next_stands(dsn: str, jobs: Jobs, epoch: int) -> None:
    (last, middle, first) = (insert_jobs(dsn, "a", priority=priority)[0] for priority in (0, 5, 9))
    insert_jobs(dsn, "a", priority=7, **{"class": "reply"})
    seen = []
    for _ in range(3):
        (taken,) = (
            await jobs.cycle(Settlement(), [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 1, peek=True)])
        ).claimed
        seen.append((taken.claim.id, taken.next and taken.next[1]))
    assert seen == [(first, middle), (middle, last), (last, None)]


async def test_settling_lets_the_next_of_an_order_group_into_its_line(dsn: str, jobs: Jobs, epoch: int) -> None:
    order = [insert_jobs(dsn, device, order_group="g")[0] for device in ("a", "b", "b")]
    (first,) = await claim(jobs, epoch, "a", "b")
    # It can be claimed by the same cycle, and is no news then.
    cycle = await jobs.cycle(finish(first), [ClaimRequest("b", LANE, epoch, FIRST_POSITION, 1)])
    (second,) = claims_of(cycle)
    assert cycle.advanced == []
    cycle = await jobs.cycle(finish(second), [])
    assert [first.id, second.id, *ids_of(cycle.advanced)] == order
    assert first.order_group == "g"


async def test_claims_are_hot_updates(dsn: str, postgres: Cluster) -> None:
    names = [f"d{number:02d}" for number in range(40)]
    add_devices(dsn, *names)
    async with Database(dsn) as database:
        epoch = await take_epoch(database)
        for name in names:
            insert_jobs(dsn, name, 10)
        jobs = Jobs(database)
        for _ in range(10):
            assert len(await claim(jobs, epoch, *names)) == 40
    # The counters are written when the connections that did it are gone.
    with connect(dsn) as connection:
        deadline = time.monotonic() + HANG
        updates = hot = 0
        while updates < 400 and time.monotonic() < deadline:
            row = connection.execute(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'shardd.jobs'::regclass"
            ).fetchone()
            assert row is not None
            updates, hot = row
        indexed = connection.execute(
            "SELECT string_agg(pg_get_indexdef(indexrelid), ' ') FROM pg_index WHERE indrelid = 'shardd.jobs'::regclass"
        ).fetchone()
    assert updates == 400
    assert hot >= 0.95 * updates
    assert indexed is not None
    assert not any(column in indexed[0] for column in ("claimed", "attempt"))


@pytest.mark.parametrize("what", ["expired", "released", "replaced", "never"])
async def test_without_a_good_lease_nothing_is_claimed(
    dsn: str, database: Database, jobs: Jobs, epoch: int, what: str
) -> None:
    insert_jobs(dsn, "a")
    with connect(dsn) as connection:
        match what:
            case "expired":
                connection.execute("UPDATE shardd.leases SET expires_at = now()")
            case "released":
                connection.execute("DELETE FROM shardd.leases")
            case "replaced":
                assert await take_epoch(database) != epoch
            case "never":
                epoch += 1000
    assert await claim(jobs, epoch, "a") == []
    assert set(states(dsn).values()) == {"queued"}


async def test_one_bad_epoch_does_not_stop_the_others(dsn: str, database: Database, jobs: Jobs, epoch: int) -> None:
    (mine,) = insert_jobs(dsn, "a")
    insert_jobs(dsn, "b")
    asks = [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 1), ClaimRequest("b", LANE, epoch + 99, FIRST_POSITION, 1)]
    cycle = await jobs.cycle(Settlement(), asks)
    assert [c.id for c in claims_of(cycle)] == [mine]


async def test_two_claimers_never_get_the_same_job(dsn: str, jobs: Jobs, epoch: int) -> None:
    names = [f"d{number:02d}" for number in range(20)]
    add_devices(dsn, *names)
    for name in names:
        insert_jobs(dsn, name, 25)
    got: Counter[int] = Counter()
    rounds: Counter[int] = Counter()

    async def claimer(number: int) -> None:
        async with Database(dsn) as database:
            mine = Jobs(database)
            while claims := await claim(mine, epoch, *names, room=2):
                got.update(c.id for c in claims)
                rounds[number] += 1
                assert all(c.attempt == 1 for c in claims)

    await asyncio.gather(*(claimer(number) for number in range(4)))
    while claims := await claim(jobs, epoch, *names, room=25):
        # What a claimer passed by because another one just had it locked.
        got.update(c.id for c in claims)
    assert len(got) == 500
    assert set(got.values()) == {1}
    assert len(rounds) > 1


async def test_a_job_that_somebody_locks_is_passed_by(dsn: str, jobs: Jobs, epoch: int) -> None:
    first, second = insert_jobs(dsn, "a", 2)
    with psycopg.connect(dsn) as other:
        other.execute("SELECT FROM shardd.jobs WHERE id = %s FOR UPDATE", [first])
        assert [c.id for c in await claim(jobs, epoch, "a")] == [second]


# ---- settling


async def test_a_finished_job_is_archived_as_it_was(dsn: str, jobs: Jobs, epoch: int) -> None:
    (job,) = insert_jobs(dsn, "a", reference="order-7", priority=3)
    (its_claim,) = await claim(jobs, epoch, "a")
    before = row_of(dsn, job)
    cycle = await jobs.cycle(finish(replace(its_claim, failures=2), message_id="3EB0", error="twice refused"), [])
    assert cycle.settled == {job}
    after = row_of(dsn, job)
    assert after["settled_at"] is not None
    assert {name for name in before if before[name] != after[name]} == {
        "state",
        "settled_at",
        "message_id",
        "failures",
        "error",
    }
    assert (after["state"], after["message_id"], after["failures"], after["error"]) == (
        "sent",
        "3EB0",
        2,
        "twice refused",
    )


@pytest.mark.parametrize("settlement", [finish, release])
async def test_settling_twice_changes_nothing(dsn: str, jobs: Jobs, epoch: int, settlement: object) -> None:
    assert callable(settlement)
    (job,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, epoch, "a")
    assert (await jobs.cycle(settlement(its_claim), [])).settled == {job}
    seen = row_of(dsn, job)
    assert (await jobs.cycle(settlement(its_claim), [])).settled == set()
    assert (await jobs.cycle(finish(its_claim, JobState.FAILED), [])).settled == set()
    assert row_of(dsn, job) == seen


@pytest.mark.parametrize("settlement", [finish, release])
@pytest.mark.parametrize("stale", [{"attempt": 1}, {"epoch": 12345}, {"id": 999_999}])
async def test_only_the_present_claim_settles(
    dsn: str, jobs: Jobs, epoch: int, settlement: object, stale: dict[str, int]
) -> None:
    assert callable(settlement)
    (job,) = insert_jobs(dsn, "a")
    (first,) = await claim(jobs, epoch, "a")
    await jobs.cycle(release(first), [])
    (second,) = await claim(jobs, epoch, "a")
    assert second.attempt == 2
    assert (await jobs.cycle(settlement(replace(second, **stale)), [])).settled == set()
    assert row_of(dsn, job)["state"] == "sending"
    assert (await jobs.cycle(settlement(second), [])).settled == {job}


async def test_a_lease_that_was_lost_does_not_keep_a_claim_from_being_settled(dsn: str, jobs: Jobs, epoch: int) -> None:
    (job,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, epoch, "a")
    with connect(dsn) as connection:
        connection.execute("DELETE FROM shardd.leases")
    assert (await jobs.cycle(finish(its_claim), [])).settled == {job}


async def test_a_release_says_when_and_why(dsn: str, jobs: Jobs, epoch: int) -> None:
    job, other = insert_jobs(dsn, "a", 2)
    its_claim, others = await claim(jobs, epoch, "a", room=2)
    at = float(int(time.time()) + 3600)
    await jobs.cycle(
        Settlement(releases=[*release(its_claim, at, 2, "busy").releases, *release(others, None, 0, None).releases]), []
    )
    seen = row_of(dsn, job)
    assert (seen["state"], seen["failures"], seen["error"]) == ("scheduled", 2, "busy")
    # By the database's clock: its now and the wait, not the moment that this host would call it.
    assert seen["due_at"].timestamp() == pytest.approx(at, abs=5)
    assert row_of(dsn, other)["state"] == "queued"
    assert [c.id for c in await claim(jobs, epoch, "a", room=2)] == [other]


async def test_deaths_of_workers_are_remembered_with_the_job(dsn: str, jobs: Jobs, epoch: int) -> None:
    insert_jobs(dsn, "a", 1)
    for deaths in (1, 2):
        cycle = await jobs.cycle(Settlement(), [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 1)])
        (taken,) = cycle.claimed
        assert (taken.claim.worker_deaths, taken.spec.worker_deaths, taken.spec.alone) == (
            deaths - 1,
            deaths - 1,
            False,
        )
        outcome = Outcome(*taken.claim.key, Verdict.RETURNED, suspect=True)
        released = settle(taken.claim, outcome, JobBackoff(), time.time())
        assert isinstance(released, Release)
        await jobs.cycle(Settlement(releases=[released]), [])
    (taken,) = (await jobs.cycle(Settlement(), [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 1)])).claimed
    assert (taken.claim.worker_deaths, taken.spec.alone) == (2, True)
    assert [c.worker_deaths for c in await jobs.live_claims([taken.claim.id], RUN)] == [2]


async def test_settle_and_claim_are_one(dsn: str, jobs: Jobs, epoch: int) -> None:
    done, given_back = insert_jobs(dsn, "a", 2)
    first, second = await claim(jobs, epoch, "a", room=2)
    settlement = Settlement(finishes=finish(first).finishes, releases=release(second).releases)
    with pytest.raises(DatabaseError):
        await jobs.cycle(settlement, [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 2**40)])
    assert states(dsn) == {done: "sending", given_back: "sending"}
    cycle = await jobs.cycle(settlement, [ClaimRequest("a", LANE, epoch, FIRST_POSITION, 5)])
    assert cycle.settled == {done, given_back}
    # What the same cycle gave back can be claimed by it.
    assert [(c.id, c.attempt) for c in claims_of(cycle)] == [(given_back, 2)]


async def test_an_empty_cycle_does_nothing(jobs: Jobs) -> None:
    cycle = await jobs.cycle(Settlement(), [])
    assert (cycle.settled, cycle.claimed) == (set(), [])


def sends_of(device: str, sent: int, at: datetime) -> Sends:
    return Sends(device, at.date(), at.hour, sent, at)


def counted(dsn: str) -> list[tuple[str, date, int, int, int, datetime]]:
    with connect(dsn) as connection:
        return connection.execute(
            "SELECT device_id, day, sent, hour, hour_sent, last_at FROM shardd.device_days ORDER BY device_id, day"
        ).fetchall()


async def test_sends_are_added_up_by_day_and_last_hour(dsn: str, jobs: Jobs, epoch: int) -> None:
    insert_jobs(dsn, "a", 4)
    day, morning = date(2026, 5, 1), datetime(2026, 5, 1, 8, tzinfo=UTC)
    evening, next_day = morning + timedelta(hours=9), morning + timedelta(days=1)
    # In one batch and over several; an hour that is reported late counts for its day only.
    batches = [
        [sends_of("a", 2, morning), sends_of("b", 1, morning)],
        [sends_of("a", 3, morning), sends_of("a", 4, evening), sends_of("b", 1, next_day)],
        [sends_of("a", 5, evening), sends_of("b", 1, evening)],
        [sends_of("a", 6, morning)],
    ]
    for its_claim, counts in zip(await claim(jobs, epoch, "a", room=4), batches, strict=True):
        await jobs.cycle(replace(finish(its_claim), counts=counts), [])
    assert counted(dsn) == [
        ("a", day, 20, 17, 9, evening),
        ("b", day, 2, 17, 1, evening),
        ("b", date(2026, 5, 2), 1, 8, 1, next_day),
    ]


async def test_sends_of_campaigns_are_added_up_by_device_and_day(dsn: str, jobs: Jobs, epoch: int) -> None:
    add_campaigns(dsn, "spring", "fall")
    insert_jobs(dsn, "a", 2)
    moment = datetime(2026, 5, 1, 8, tzinfo=UTC)
    batches = [
        [replace(sends_of("a", 2, moment), campaign="spring"), replace(sends_of("b", 1, moment), campaign="spring")],
        [replace(sends_of("a", 3, moment), campaign="spring"), replace(sends_of("a", 1, moment), campaign="fall")],
    ]
    for its_claim, counts in zip(await claim(jobs, epoch, "a", room=2), batches, strict=True):
        await jobs.cycle(replace(finish(its_claim), counts=counts), [])
    with connect(dsn) as connection:
        rows = connection.execute("SELECT campaign, device_id, sent FROM shardd.campaign_days ORDER BY 1, 2").fetchall()
    assert rows == [("fall", "a", 1), ("spring", "a", 5), ("spring", "b", 1)]
    assert counted(dsn) == []


# ---- doubts


def resolution(its_claim: Claim, verdict: Verdict, **more: Any) -> Finish | Release:
    return resolve(its_claim, Outcome(*its_claim.key, verdict, **more))


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict.SENT, "sent"),
        (Verdict.PERMANENT, "failed"),
        (Verdict.EXPIRED, "expired"),
        (Verdict.OPTED_OUT, "opted_out"),
        (Verdict.IN_DOUBT, "in_doubt"),
    ],
)
async def test_a_doubt_is_resolved_by_a_journal(dsn: str, jobs: Jobs, epoch: int, verdict: Verdict, state: str) -> None:
    (job,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(its_claim, JobState.IN_DOUBT, error="lost"), [])
    for stale in ({"attempt": 2}, {"epoch": epoch + 1}):
        assert await jobs.resolve_doubts([resolution(replace(its_claim, **stale), verdict)]) == []
    assert await jobs.resolve_doubts([resolution(its_claim, verdict, message_id="3EB0", error="why")]) == [job]
    seen = row_of(dsn, job)
    assert (seen["state"], seen["message_id"], seen["error"]) == (state, "3EB0", "why")
    if state != "in_doubt":
        assert await jobs.resolve_doubts([resolution(its_claim, Verdict.PERMANENT)]) == []
        assert await jobs.resolve_doubts([resolution(its_claim, Verdict.RETURNED)]) == []
        assert row_of(dsn, job) == seen


@pytest.mark.parametrize(
    ("verdict", "failures"), [(Verdict.TRANSIENT, 2), (Verdict.UNAVAILABLE, 1), (Verdict.RETURNED, 1)]
)
async def test_a_doubt_about_what_was_not_sent_is_queued_again_once(
    dsn: str, jobs: Jobs, epoch: int, verdict: Verdict, failures: int
) -> None:
    (job,) = insert_jobs(dsn, "a", order_group="g", dedupe_key="k")
    (first,) = await claim(jobs, epoch, "a")
    await jobs.cycle(release(first, failures=1), [])
    (second,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(second, JobState.IN_DOUBT, error="lost"), [])
    assert await jobs.resolve_doubts([resolution(first, verdict)]) == [], "of an earlier claim"
    assert await jobs.resolve_doubts([resolution(second, verdict, error="why")]) == [job]
    seen = row_of(dsn, job)
    assert (seen["state"], seen["failures"], seen["error"], seen["attempt"]) == ("queued", failures, "why", 2)
    (third,) = await claim(jobs, epoch, "a")
    assert await jobs.resolve_doubts([resolution(second, verdict)]) == []
    assert third.token != second.token
    assert row_of(dsn, job)["state"] == "sending"
    await jobs.cycle(finish(third, JobState.IN_DOUBT), [])
    assert await jobs.resolve_doubts([resolution(second, verdict)]) == []
    assert row_of(dsn, job)["state"] == "in_doubt"


async def test_a_last_attempt_that_a_journal_knows_to_have_failed_ends_the_job(
    dsn: str, jobs: Jobs, epoch: int
) -> None:
    (job,) = insert_jobs(dsn, "a", max_attempts=1)
    (its_claim,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(its_claim, JobState.IN_DOUBT), [])
    assert await jobs.resolve_doubts([resolution(its_claim, Verdict.TRANSIENT, error="busy")]) == [job]
    assert (row_of(dsn, job)["state"], row_of(dsn, job)["error"]) == ("failed", "busy")


@pytest.mark.parametrize(
    ("meanwhile", "end"),
    [
        (
            "UPDATE shardd.campaigns SET state = 'cancelled'",
            ("failed", "not handed over, and not to be queued again: its campaign was cancelled"),
        ),
        ("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567')", ("opted_out", "the recipient opted out")),
        ("UPDATE shardd.archive SET expires_at = now()", ("expired", "not sent before expires_at")),
        (
            "UPDATE shardd.dedupe_keys SET job_id = 4711",
            ("failed", "not handed over, and not to be queued again: another job has its dedupe_key"),
        ),
    ],
)
async def test_a_job_that_was_not_sent_and_cannot_be_queued_again_ends(
    dsn: str, jobs: Jobs, epoch: int, meanwhile: str, end: tuple[str, str]
) -> None:
    add_campaigns(dsn, "c")
    (job,) = insert_jobs(dsn, "a", campaign="c", dedupe_key="k")
    (its_claim,) = await claim(jobs, epoch, "a", lane="c/marketing")
    await jobs.cycle(finish(its_claim, JobState.IN_DOUBT), [])
    with connect(dsn) as connection:
        connection.execute(meanwhile)  # type: ignore[arg-type]  # a literal
    assert await jobs.resolve_doubts([resolution(its_claim, Verdict.RETURNED)]) == [job]
    assert (row_of(dsn, job)["state"], row_of(dsn, job)["error"]) == end


async def test_a_retried_job_cannot_be_settled_by_its_earlier_claim(
    dsn: str, database: Database, jobs: Jobs, epoch: int
) -> None:
    (job,) = insert_jobs(dsn, "a", dedupe_key="order-7")
    (first,) = await claim(jobs, epoch, "a")
    await jobs.cycle(finish(first, JobState.IN_DOUBT), [])
    assert await retry(database, job)
    assert await jobs.resolve_doubts([resolution(first, Verdict.SENT)]) == []
    (second,) = await claim(jobs, epoch, "a")
    assert (second.id, second.attempt, second.failures) == (job, 2, 0)
    assert (await jobs.cycle(finish(first), [])).settled == set()
    assert (await jobs.cycle(finish(second), [])).settled == {job}
    # Its key is still taken.
    assert insert_jobs(dsn, "a", dedupe_key="order-7") == []


# ---- finding work


async def test_new_work_tells_where_new_jobs_begin(dsn: str, jobs: Jobs, epoch: int) -> None:
    assert await jobs.newest_id() == 0
    first, second = insert_jobs(dsn, "a", 2, run_at=PAST)
    (urgent,) = insert_jobs(dsn, "a", priority=9)
    (other,) = insert_jobs(dsn, "b")
    places, newest, count = await jobs.new_work(0, 100)
    assert (firsts_of(places), count) == ({"a": urgent, "b": other}, 4)
    assert newest == other == await jobs.newest_id()
    assert await jobs.new_work(newest, 100) == ([], newest, 0)
    places, _, count = await jobs.new_work(first, 100)
    assert (firsts_of(places), count) == ({"a": urgent, "b": other}, 3)
    assert second < urgent
    # More than are looked at with one statement: the first of them, and as many as were asked for.
    places, newest, count = await jobs.new_work(0, 2)
    assert (firsts_of(places), newest, count) == ({"a": first}, second, 2)


async def test_work_that_is_not_due_or_in_hand_is_no_new_work(dsn: str, jobs: Jobs, epoch: int) -> None:
    insert_jobs(dsn, "a")
    insert_jobs(dsn, "b", run_at="2090-01-01 00:00:00+00")
    await claim(jobs, epoch, "a")
    assert await jobs.new_work(0, 100) == ([], 0, 0)


async def test_out_of_order_commits_are_missed_by_the_tail_and_found_by_the_scan(
    dsn: str, jobs: Jobs, epoch: int
) -> None:
    with psycopg.connect(dsn) as slow:
        (early,) = insert_jobs(slow, "a")
        (late,) = insert_jobs(dsn, "b")
        places, seen, _ = await jobs.new_work(0, 100)
        assert (firsts_of(places), seen) == ({"b": late}, late)
        slow.commit()
    assert early < late
    assert (await jobs.new_work(seen, 100))[0] == []
    assert firsts_of(await find_work(jobs)) == {"a": early, "b": late}


async def test_the_scan_finds_every_device_once(dsn: str, jobs: Jobs, epoch: int) -> None:
    names = [f"d{number:03d}" for number in range(300)]
    add_devices(dsn, *names)
    firsts = {}
    for name in names[::3]:
        firsts[name] = insert_jobs(dsn, name, 2, run_at=PAST)[0]
    insert_jobs(dsn, names[1], run_at="2090-01-01 00:00:00+00")
    found = await find_work(jobs)
    assert firsts_of(found) == firsts
    assert len(found) == len(firsts)


async def test_the_scan_passes_by_what_is_in_hand(dsn: str, jobs: Jobs, epoch: int) -> None:
    insert_jobs(dsn, "a", 2, priority=9)
    (behind,) = insert_jobs(dsn, "a", **{"class": "reply"})
    insert_jobs(dsn, "b")
    (other,) = insert_jobs(dsn, "c")
    await claim(jobs, epoch, "a", room=2)
    await claim(jobs, epoch, "b")
    found = await find_work(jobs)
    assert [(device, lane, place[1]) for device, lane, place in found] == [("a", "/reply", behind), ("c", LANE, other)]


async def test_due_jobs_join_their_line_in_time(dsn: str, jobs: Jobs, epoch: int) -> None:
    ids = insert_jobs(dsn, "a", 5, run_at=PAST)
    claims = await claim(jobs, epoch, "a", room=5)
    now = time.time()
    for number, its_claim in enumerate(claims):
        await jobs.cycle(release(its_claim, now - 10 + number if number < 3 else now + 3600), [])
    many, places = await jobs.promote_due(2)
    assert (many, ids_of(places)) == (2, ids[:2])
    assert await jobs.promote_due(100) == (1, [("a", LANE, (claims[2].ord, ids[2]))])
    assert await jobs.promote_due(100) == (0, [])
    assert [row_of(dsn, job)["state"] for job in ids] == ["queued"] * 3 + ["scheduled"] * 2


async def test_two_promoters_share_the_work(dsn: str, jobs: Jobs, epoch: int) -> None:
    ids = insert_jobs(dsn, "a", 200)
    claims = await claim(jobs, epoch, "a", room=200)
    due = [r for its_claim in claims for r in release(its_claim, time.time() - 1).releases]
    await jobs.cycle(Settlement(releases=due), [])
    async with Database(dsn) as other:
        lots = await asyncio.gather(*(who.promote_due(30) for who in (jobs, Jobs(other)) for _ in range(4)))
    lots.append(await jobs.promote_due(1000))
    assert sorted(job for _, places in lots for job in ids_of(places)) == ids
    assert sum(many for many, _ in lots) == len(ids)


async def test_the_depth_counts_every_live_job_once(dsn: str, database: Database, jobs: Jobs, epoch: int) -> None:
    assert await Counts(database).depth() == {
        "queued": 0,
        "scheduled": 0,
        "sending": 0,
        "paused_jobs": 0,
        "waits": {},
        "oldest_due_age": None,
    }
    insert_jobs(dsn, "a", 3)
    insert_jobs(dsn, "b", 2, run_at="2090-01-01 00:00:00+00")
    await claim(jobs, epoch, "a")
    depth = await Counts(database).depth()
    age = depth.pop("oldest_due_age")
    assert depth == {"queued": 2, "scheduled": 2, "sending": 1, "paused_jobs": 0, "waits": {"its turn": 2}}
    assert 0 <= age < HANG


async def test_a_device_that_is_held_back_has_no_job_that_is_due(dsn: str, database: Database, epoch: int) -> None:
    insert_jobs(dsn, "a", 2)
    insert_jobs(dsn, "b")
    counts = Counts(database)
    both = await counts.depth()
    assert both["oldest_due_age"] is not None
    assert (await counts.depth({"b": 60.0}))["oldest_due_age"] is not None
    assert await counts.depth({"b": 60.0, "a": 1e9, "unknown": 1.0}) == {**both, "oldest_due_age": None}


async def test_the_depth_says_what_queued_jobs_wait_for(dsn: str, database: Database, epoch: int) -> None:
    add_campaigns(dsn, "spring", "summer")
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.campaigns SET state = 'paused' WHERE id = 'spring'")
        for device in ("full", "gone", "held", "late", "down"):
            connection.execute("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", (device,))
        connection.execute("UPDATE shardd.devices SET state = 'logged_out' WHERE id = 'gone'")
        connection.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'held'")
    insert_jobs(dsn, "a", 7)
    insert_jobs(dsn, "a", 6, campaign="spring")
    insert_jobs(dsn, "gone", 5)
    insert_jobs(dsn, "held", 4)
    insert_jobs(dsn, "full", 3)
    insert_jobs(dsn, "full", 1, campaign="summer")  # another lane
    insert_jobs(dsn, "late", 2)
    insert_jobs(dsn, "down", 1)
    insert_jobs(dsn, "a", 9, run_at="2090-01-01 00:00:00+00")
    waits = {
        ("full", "/marketing"): ("its daily limit", 60.0),
        ("late", "/marketing"): ("a backoff of its device (no)", 60.0),
    }
    await LaneWaits(database).save(waits)
    depth = await Counts(database).depth({"a": -5.0}, {"down": "broken", "gone": "broken"})
    assert depth["waits"] == {
        "its turn": 8,
        "its campaign: paused": 6,
        "its device: logged_out": 5,
        "its device: paused": 4,
        "its daily limit": 3,
        "a backoff of its device": 2,
        "its shard: broken": 1,
    }


async def test_a_job_is_due_since_its_pace_allows_it(dsn: str, database: Database, epoch: int) -> None:
    insert_jobs(dsn, "a", 2, run_at="2020-01-01 00:00:00+00")
    counts = Counts(database)

    async def age(**opens: float) -> float | None:
        found: float | None = (await counts.depth(opens))["oldest_due_age"]
        return found

    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.jobs SET created_at = run_at")
        connection.execute("UPDATE shardd.devices SET state_since = '2020-01-01'")
    year = 365 * 86400.0
    assert await age() > year
    # The end of its last gap, limit, quiet hours, backoff or pause.
    assert await age(a=-3600.0) == pytest.approx(3600, abs=HANG)
    await LaneWaits(database).save({("a", "/marketing"): ("its quiet hours", 0.0)})
    assert await age() == pytest.approx(0, abs=HANG)
    await LaneWaits(database).save({("a", "/marketing"): ("its quiet hours", 60.0)})
    assert await age() is None
    await LaneWaits(database).save({("a", "/marketing"): ("its quiet hours", -7200.0)})
    assert await age() == pytest.approx(7200, abs=HANG)
    await DeviceAdmin(database).pause(["a"], None)
    assert await age() is None
    await DeviceAdmin(database).resume(["a"])
    assert await age() == pytest.approx(0, abs=HANG)


async def test_jobs_in_doubt_are_counted_until_somebody_decides(dsn: str, database: Database, epoch: int) -> None:
    ids = insert_jobs(dsn, "a", 3)
    with connect(dsn) as connection:
        connection.execute("SELECT shardd.end_jobs(%s, 'in_doubt', 'x', 'worker')", [ids[:2]])
        connection.execute("SELECT shardd.end_jobs(%s, 'failed', 'x', 'worker')", [ids[2:]])
    assert await Counts(database).doubts() == 2
    with connect(dsn) as connection:
        connection.execute("SELECT shardd.bring_back(%s)", [ids[:1]])
    assert await Counts(database).doubts() == 1


# ---- what is in whose hand


async def test_the_claims_of_a_supervisor_are_found_under_whatever_epoch(
    dsn: str, database: Database, jobs: Jobs
) -> None:
    run, other = uuid4(), uuid4()
    add_devices(dsn, "x", "y", "z")
    mine = []
    for shard, (device, incarnation) in enumerate((("x", run), ("y", other), ("z", run))):
        insert_jobs(dsn, device)
        epoch = await take_epoch(database, shard, incarnation=incarnation)
        mine += [one for one in await claim(jobs, epoch, device) if incarnation == run]
    assert sorted(await jobs.claims_of_incarnation(run).rest(), key=lambda c: c.id) == mine
    assert await jobs.live_claims([one.id for one in mine], other) == []
    assert sorted(await jobs.live_claims([one.id for one in mine], run), key=lambda c: c.id) == mine
    assert await jobs.claims_of_incarnation(uuid4()).rest() == []


async def test_orphans_are_claims_without_a_lease(dsn: str, database: Database, jobs: Jobs, epoch: int) -> None:
    insert_jobs(dsn, "a")
    (mine,) = await claim(jobs, epoch, "a")
    assert await jobs.orphaned_claims(60).rest() == []
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.leases SET expires_at = now()")
    (orphan,) = await jobs.orphaned_claims(60).rest()
    assert (orphan.claim, orphan.node, orphan.shard, orphan.drained) == (mine, "node-a", 0, False)
    # The same supervisor was seen just now: it may settle them yet.
    assert orphan.alive
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.nodes SET seen_at = now() - interval '61 seconds'")
    assert [entry.alive for entry in await jobs.orphaned_claims(60).rest()] == [False]
    # A new incarnation of the node knows nothing of them.
    await take_epoch(database, shard=5)
    assert [entry.alive for entry in await jobs.orphaned_claims(60).rest()] == [False]


# ---- receipts


async def test_a_receipt_finds_its_message_and_the_earliest_stands(dsn: str, jobs: Jobs, epoch: int) -> None:
    (job,) = insert_jobs(dsn, "a")
    (its_claim,) = await claim(jobs, epoch, "a")
    assert await jobs.save_receipt(Receipt("a", ["M1"], "delivered", 100.0)) == 0
    await jobs.cycle(finish(its_claim, message_id="M1"), [])
    assert await jobs.save_receipt(Receipt("b", ["M1"], "delivered", 100.0)) == 0
    assert await jobs.save_receipt(Receipt("a", ["M1", "M2"], "read", 300.0)) == 1
    seen = row_of(dsn, job)
    assert (seen["delivered_at"].timestamp(), seen["read_at"].timestamp()) == (300.0, 300.0)
    await jobs.save_receipt(Receipt("a", ["M1"], "delivered", 200.0))
    await jobs.save_receipt(Receipt("a", ["M1"], "read", 400.0))
    seen = row_of(dsn, job)
    assert (seen["delivered_at"].timestamp(), seen["read_at"].timestamp()) == (200.0, 300.0)


async def test_a_platform_may_say_later_that_it_failed_unless_it_was_delivered(
    dsn: str, jobs: Jobs, epoch: int
) -> None:
    insert_jobs(dsn, "a", 2)
    for message_id in ("M1", "M2"):
        (its_claim,) = await claim(jobs, epoch, "a")
        await jobs.cycle(finish(its_claim, message_id=message_id), [])
    await jobs.save_receipt(Receipt("a", ["M2"], "delivered", 100.0))
    assert await jobs.save_receipt(Receipt("a", ["M1", "M2"], "failed", 200.0, "no such number", "recipient")) == 2
    assert sorted(states(dsn).values()) == ["failed", "sent"]
    with connect(dsn) as connection:
        told = connection.execute(
            "SELECT message_id, error, error_class FROM shardd.archive ORDER BY message_id"
        ).fetchall()
    assert told == [("M1", "no such number", "recipient"), ("M2", None, None)]


# ---- waking up


@pytest.mark.parametrize("writers", [1, 5])
async def test_an_insert_wakes_the_router(dsn: str, database: Database, writers: int) -> None:
    add_devices(dsn, "a")
    connected, woken = asyncio.Event(), asyncio.Event()

    async def listen() -> None:
        async for event in database.listen("shardd_jobs"):
            (connected if event.kind == "connected" else woken).set()

    listener = asyncio.create_task(listen())
    async with asyncio.timeout(HANG):
        await connected.wait()
        await asyncio.gather(*(asyncio.to_thread(insert_jobs, dsn, "a", 10) for _ in range(writers)))
        await woken.wait()
    listener.cancel()


# ---- the token


def test_every_row_has_a_token_of_its_own_whatever_seed_a_producer_sets(dsn: str) -> None:
    add_devices(dsn, "a")
    for _ in range(2):
        with connect(dsn) as connection:
            connection.execute("SELECT setseed(0.5)")
            insert_jobs(connection, "a", 500)
    with connect(dsn) as connection:
        tokens = [row[0] for row in connection.execute("SELECT token FROM shardd.jobs")]
    assert len(set(tokens)) == 1000
    # All over the range of bigint.
    assert min(tokens) < -(2**62) < 2**62 < max(tokens)


async def test_a_claim_with_another_token_settles_nothing(dsn: str, jobs: Jobs, epoch: int) -> None:
    insert_jobs(dsn, "a", 3)
    claims = await claim(jobs, epoch, "a", room=3)
    others = [replace(one, token=one.token ^ 1) for one in claims]
    for settlement in (*map(finish, others), *map(release, others)):
        assert (await jobs.cycle(settlement, [])).settled == set()
    assert set(states(dsn).values()) == {"sending"}
    for settlement in (finish(claims[0]), release(claims[1]), finish(claims[2], JobState.IN_DOUBT)):
        assert len((await jobs.cycle(settlement, [])).settled) == 1
    for verdict in (Verdict.SENT, Verdict.RETURNED):
        assert await jobs.resolve_doubts([resolution(others[2], verdict)]) == []
    assert await jobs.resolve_doubts([resolution(claims[2], Verdict.SENT)]) == [claims[2].id]


async def test_a_job_keeps_its_token_until_a_person_sends_it_again(
    dsn: str, database: Database, jobs: Jobs, epoch: int
) -> None:
    insert_jobs(dsn, "a")
    (first,) = await claim(jobs, epoch, "a")
    await jobs.cycle(release(first), [])
    (second,) = await claim(jobs, epoch, "a")
    assert (second.token, second.attempt) == (first.token, 2)
    await jobs.cycle(finish(second, JobState.FAILED), [])
    assert [chunk async for chunk in JobAdmin(database).retry(Traits(state="failed"), None)]
    (third,) = await claim(jobs, epoch, "a")
    assert (third.id, third.token != first.token) == (first.id, True)
