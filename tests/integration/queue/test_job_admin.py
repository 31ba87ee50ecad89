"""Operations on jobs, with a real database: which jobs are found, which are held back, and what a retry keeps."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from shardd.queue import job_admin
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, JobResult, Traits
from shardd.queue.jobs import Jobs
from shardd.states import JOB_TRANSITIONS, JobState
from tests.support.queue_rows import add_devices, claim, connect, finish, insert_jobs, row_of, states, take_epoch
from tests.support.statements import SteppingClock

FAILED = Traits(state=JobState.FAILED)


@pytest.fixture
def admin(database: Database) -> JobAdmin:
    return JobAdmin(database)


@pytest.fixture
def owner(dsn: str) -> Any:
    add_devices(dsn, "a", "b")
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.campaigns (id) VALUES ('c1'), ('c2')")
        connection.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
        yield connection


def end(owner: psycopg.Connection[Any], ids: list[int], state: str = "failed", error_class: str | None = None) -> None:
    done = owner.execute("SELECT shardd.end_jobs(%s, %s, 'why', %s)", [ids, state, error_class]).fetchall()
    assert len(done) == len(ids)


async def retry(admin: JobAdmin, traits: Traits, ids: list[int] | None = None) -> list[JobResult]:
    return [one async for chunk in admin.retry(traits, ids) for one in chunk]


async def cancel(admin: JobAdmin, traits: Traits, ids: list[int] | None = None) -> list[JobResult]:
    return [one async for chunk in admin.cancel(traits, "test", ids) for one in chunk]


def done(handled: list[JobResult]) -> list[int]:
    return [one.id for one in handled if one.done]


# ---- which jobs

TRAITS: list[tuple[dict[str, Any], Traits]] = [
    ({"device_id": "b"}, Traits(device_ids=["b", "x"])),
    ({"campaign": "c1"}, Traits(campaign="c1")),
    ({"class": "reply"}, Traits(job_class="reply")),
    ({"order_group": "o1"}, Traits(order_group="o1")),
    ({"reference": "r1"}, Traits(reference="r1")),
]


@pytest.mark.parametrize(("fields", "traits"), TRAITS)
async def test_jobs_are_found_by_what_they_have_in_common(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str, *, fields: dict[str, Any], traits: Traits
) -> None:
    others = [
        *insert_jobs(owner, "a", 2),
        *insert_jobs(owner, "a", campaign="c2", order_group="o2", reference="r2"),
    ]
    ours = insert_jobs(owner, "a", 3, **fields)
    assert sum(pile.jobs for pile in await admin.count_cancels(traits)) == 3
    assert done(await cancel(admin, traits)) == ours
    assert {number for number, state in states(dsn).items() if state != "cancelled"} == set(others)
    assert await cancel(admin, traits) == [], "a second time there is nothing to do"

    assert sum(pile.jobs for pile in await admin.count_retries(traits)) == 3
    assert done(await retry(admin, traits)) == ours
    assert "cancelled" not in states(dsn).values()
    assert await retry(admin, traits) == [], "a second time there is nothing to do"


async def test_everything_that_is_asked_for_must_be_true(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    both = insert_jobs(owner, "a", 2, campaign="c1", reference="r1")
    one = insert_jobs(owner, "a", campaign="c1")
    end(owner, [*both, *one], error_class="timeout")
    end(owner, insert_jobs(owner, "a", campaign="c1", reference="r1"), error_class="content")
    end(owner, insert_jobs(owner, "a", campaign="c1", reference="r1"), "in_doubt", error_class="timeout")
    wanted = Traits(state=JobState.FAILED, campaign="c1", reference="r1", error_class="timeout")
    assert done(await retry(admin, wanted)) == both
    assert done(await retry(admin, wanted, one)) == []
    assert done(await retry(admin, Traits(campaign="c1"), one)) == one


async def test_a_cancel_may_ask_for_a_state(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    insert_jobs(owner, "a", 2)
    scheduled = insert_jobs(owner, "a", 2, run_at="2090-01-01 00:00:00+00")
    assert done(await cancel(admin, Traits(state=JobState.SCHEDULED))) == scheduled


@pytest.mark.parametrize("by_id", [True, False])
async def test_many_jobs_go_in_chunks(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str, monkeypatch: pytest.MonkeyPatch, *, by_id: bool
) -> None:
    monkeypatch.setattr(job_admin, "CHUNK", 10)
    mine = insert_jobs(owner, "a", 35)
    insert_jobs(owner, "b", 35)
    ids = list(reversed(mine)) if by_id else None
    sizes = [len(chunk) async for chunk in admin.cancel(Traits(device_ids=["a"]), "test", ids)]
    assert sum(sizes) == 35
    assert max(sizes) == 10
    assert Counter(states(dsn).values()) == {"cancelled": 35, "queued": 35}
    traits = Traits(device_ids=["a"], state=JobState.CANCELLED)
    assert sorted(done(await retry(admin, traits, ids))) == mine
    assert sum(pile.jobs for pile in await admin.count_cancels(Traits(), mine)) == 35


async def test_many_jobs_are_looked_at_in_windows_of_ids(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_admin, "FIRST_WINDOW", 9)
    monkeypatch.setattr(job_admin, "CHUNK", 4)
    monkeypatch.setattr(JobAdmin, "clock", SteppingClock(job_admin.STEP / 1.6))  # so slow that windows grow little
    devices = "aaaaaabbaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbaabbbbbbaaaaaabb"
    ids = [insert_jobs(owner, name)[0] for name in devices]
    mine = [number for number, name in zip(ids, devices, strict=True) if name == "a"]
    so_far: list[int] = []
    counts = await admin.count_cancels(
        Traits(device_ids=["a"]), None, lambda found: so_far.append(sum(some.jobs for some in found))
    )
    assert sum(some.jobs for some in counts) == so_far[-1] == len(mine)
    assert so_far == sorted(so_far)
    assert len(so_far) > 3
    sizes = [len(handled) async for handled in admin.cancel(Traits(device_ids=["a"]), "test")]
    assert max(sizes) == 4
    assert 0 in sizes, "some windows have none"
    assert [number for number, state in states(dsn).items() if state == "cancelled"] == mine
    assert sum(some.jobs for some in await admin.count_retries(Traits(state=JobState.CANCELLED))) == len(mine)
    assert done(await retry(admin, Traits(state=JobState.CANCELLED))) == mine


async def test_counting_changes_nothing(owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str) -> None:
    end(owner, insert_jobs(owner, "a", 3, campaign="c1"))
    end(owner, insert_jobs(owner, "a", 2), "in_doubt")
    insert_jobs(owner, "a", 4)
    before = states(dsn)
    piles = {
        (pile.state, pile.job_class, pile.campaign, pile.obstacle): pile.jobs
        for pile in await admin.count_retries(Traits())
    }
    assert piles == {("failed", "marketing", "c1", None): 3, ("in_doubt", "marketing", None, None): 2}
    piles = {
        (pile.state, pile.job_class, pile.campaign, pile.obstacle): pile.jobs
        for pile in await admin.count_cancels(Traits())
    }
    assert piles == {("queued", "marketing", None, None): 4}
    assert states(dsn) == before


# ---- what keeps a job back


async def test_what_is_in_hand_is_not_cancelled(
    owner: psycopg.Connection[Any], admin: JobAdmin, database: Database, dsn: str
) -> None:
    first, second = insert_jobs(owner, "a", 2)
    await claim(Jobs(database), await take_epoch(database), "a")
    assert await cancel(admin, Traits(), [first, second]) == [
        JobResult(first, "sending", "in_flight", done=False),
        JobResult(second, "queued", None, done=True),
    ]
    assert states(dsn) == {first: "sending", second: "cancelled"}
    assert (row_of(dsn, second)["error"], row_of(dsn, second)["error_class"]) == ("test", "cancelled")


OBSTACLES = [
    ("device", {}, "UPDATE shardd.devices SET removed_at = now() WHERE id = 'a'"),
    ("group", {"device_id": None, "device_group": "g"}, "DELETE FROM shardd.device_groups"),
    ("campaign", {"campaign": "c1"}, "UPDATE shardd.campaigns SET state = 'cancelled'"),
    ("campaign", {"campaign": "c1"}, "DELETE FROM shardd.campaigns"),
    ("expired", {"expires_at": "2090-01-01 00:00:00+00"}, "UPDATE shardd.archive SET expires_at = now()"),
    ("opted_out", {}, "INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567')"),
    ("key", {"dedupe_key": "k"}, "UPDATE shardd.dedupe_keys SET job_id = job_id + 1000"),
]


@pytest.mark.parametrize(("obstacle", "fields", "change"), OBSTACLES)
async def test_an_obstacle_keeps_a_job_as_it_is(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str, *, obstacle: str, fields: dict[str, Any], change: str
) -> None:
    (job,) = insert_jobs(owner, "a", **fields)
    end(owner, [job])
    owner.execute(change)  # type: ignore[call-overload]  # the statements above
    assert [(pile.obstacle, pile.jobs) for pile in await admin.count_retries(FAILED)] == [(obstacle, 1)]
    assert await retry(admin, FAILED) == [JobResult(job, "failed", obstacle, done=False)]
    assert await retry(admin, Traits(), [job]) == [JobResult(job, "failed", obstacle, done=False)]
    assert states(dsn) == {job: "failed"}


async def test_what_waited_for_a_job_that_expired_does_not_come_back(
    owner: psycopg.Connection[Any], admin: JobAdmin
) -> None:
    first, second = insert_jobs(owner, "a", 2, order_group="o")
    (other,) = insert_jobs(owner, "a", order_group="other")
    end(owner, [first], "expired")
    end(owner, [second, other])
    assert await retry(admin, FAILED) == [
        JobResult(second, "failed", "order", done=False),
        JobResult(other, "failed", None, done=True),
    ]


async def test_a_service_message_may_be_exempt_from_opt_outs(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    (service,) = insert_jobs(owner, "a", **{"class": "service"})
    (marketing,) = insert_jobs(owner, "a")
    end(owner, [service, marketing])
    owner.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567')")
    owner.execute(
        "INSERT INTO shardd.settings VALUES ('opt_outs.exempt', '[\"service\"]') "
        "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
    )
    assert done(await retry(admin, FAILED)) == [service]


@pytest.mark.parametrize("state", ["sent", "expired", "opted_out"])
async def test_what_ended_for_good_is_not_looked_at(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str, state: str
) -> None:
    (job,) = insert_jobs(owner, "a")
    end(owner, [job], state)
    assert await retry(admin, Traits(), [job]) == []
    assert await admin.count_retries(Traits()) == []
    assert await admin.states([job, job + 1]) == {job: state}


# ---- what a retry keeps

EVERYTHING: dict[str, Any] = {
    "recipient": "+62 812-34567", "kind": "image", "body": "hi {name}, {{literally}}", "variables": '{"name": "{x}"}',
    "media": "https://x/y.png", "file_name": "y.png", "mime_type": "image/png", "details": "{}", "class": "service",
    "campaign": "c1", "priority": 7, "run_at": "2026-01-01 00:00:00+00", "expires_at": "2090-01-01 00:00:00+00",
    "max_attempts": 3, "on_doubt": "retry", "dedupe_key": "k", "order_group": "o", "reference": "r", "metadata": '{"id": 7}',
}  # fmt: skip


def whole(owner: psycopg.Connection[Any], job: int) -> dict[str, Any] | None:
    return owner.cursor(row_factory=dict_row).execute("SELECT * FROM shardd.jobs WHERE id = %s", [job]).fetchone()


async def test_a_retried_job_is_the_job_that_it_was(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    (job,) = insert_jobs(owner, "a", **EVERYTHING)
    owner.execute(
        "UPDATE shardd.jobs SET confirms = true, attempt = 4, failures = 2, error = 'x', error_class = 'timeout'"
    )
    before = whole(owner, job)
    assert before is not None
    assert before["body"] == "hi {x}, {literally}"
    end(owner, [job])
    assert done(await retry(admin, FAILED)) == [job]
    # All attempts anew; the count of claims goes on, so that an old claim can never be taken for a new one.
    after = whole(owner, job)
    assert after is not None
    assert after["token"] != before["token"], "what a journal says of it was another sending"
    own = {name: after[name] for name in ("token", "created_xid")}
    assert after == {**before, **own, "failures": 0, "error": None, "error_class": None}
    assert insert_jobs(owner, "a", dedupe_key="k") == [], "its key is still taken"


async def test_a_job_that_is_retried_before_its_time_waits_for_it(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str
) -> None:
    (job,) = insert_jobs(owner, "a", run_at="2100-01-01")
    assert done(await cancel(admin, Traits(), [job])) == [job]
    cancelled = JobState(row_of(dsn, job)["state"])
    assert done(await retry(admin, Traits(state=JobState.CANCELLED))) == [job]
    again = JobState(row_of(dsn, job)["state"])
    assert (cancelled, again) == (JobState.CANCELLED, JobState.SCHEDULED)
    assert again in JOB_TRANSITIONS[cancelled].values()


async def test_the_job_of_a_group_is_given_to_any_device_again(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    (job,) = insert_jobs(owner, "a", device_id=None, device_group="g")
    owner.execute("UPDATE shardd.jobs SET device_id = 'a'")
    end(owner, [job])
    owner.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'a'")
    assert done(await retry(admin, FAILED)) == [job]
    row = whole(owner, job)
    assert row is not None
    assert (row["device_id"], row["device_group"]) == (None, "g")


async def test_a_device_that_goes_leaves_the_jobs_of_its_groups_behind(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str
) -> None:
    waits, later, in_flight = insert_jobs(owner, "a", 3, device_id=None, device_group="g")
    (own,) = insert_jobs(owner, "a")
    owner.execute("UPDATE shardd.jobs SET device_id = 'a'")
    owner.execute("UPDATE shardd.jobs SET scheduled = true, due_at = now() WHERE id = %s", [later])
    owner.execute("UPDATE shardd.jobs SET claimed_epoch = 1 WHERE id = %s", [in_flight])
    assert await admin.return_to_pools(["a", "b"]) == 2
    assert await admin.return_to_pools(["a", "b"]) == 0
    rows = dict(owner.execute("SELECT id, device_id FROM shardd.jobs").fetchall())
    assert rows == {waits: None, later: None, in_flight: "a", own: "a"}


async def test_a_job_is_shown_whole(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    (job,) = insert_jobs(owner, "a", **EVERYTHING)
    end(owner, [job], error_class="timeout")
    shown = await admin.show(job)
    assert shown is not None
    assert (shown.job_class, shown.campaign, shown.order_group, shown.error_class) == ("service", "c1", "o", "timeout")
    assert (shown.body, shown.variables, shown.metadata) == ("hi {x}, {literally}", {"name": "{x}"}, {"id": 7})
    assert shown.expires_at is not None
    (listed,) = await admin.newest(
        5, Traits(campaign="c1", job_class="service", error_class="timeout", order_group="o")
    )
    assert (listed.id, listed.device_group, listed.metadata) == (job, None, {"id": 7})
    assert await admin.newest(5, Traits(campaign="c2")) == []


# ---- at the same time


async def test_two_operators_bring_each_job_back_once(owner: psycopg.Connection[Any], admin: JobAdmin) -> None:
    ids = insert_jobs(owner, "a", 300)
    end(owner, ids)
    first, second = await asyncio.gather(retry(admin, FAILED), retry(admin, FAILED))
    assert sorted(done(first) + done(second)) == ids
    assert owner.execute("SELECT count(*), count(DISTINCT id) FROM shardd.outcomes").fetchone() == (300, 300)


async def test_a_job_is_cancelled_or_claimed_and_never_both(
    owner: psycopg.Connection[Any], admin: JobAdmin, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_admin, "CHUNK", 7)
    ids = insert_jobs(owner, "a", 400)
    epoch, jobs = await take_epoch(database), Jobs(database)
    claimed: list[int] = []

    async def send() -> None:
        while claims := await claim(jobs, epoch, "a", room=5):
            claimed.extend(one.id for one in claims)
            for one in claims:
                await jobs.cycle(finish(one), [])

    _, cancelled = await asyncio.gather(send(), cancel(admin, Traits()))
    assert claimed
    assert sorted(claimed + done(cancelled)) == ids
    assert Counter(row[0] for row in owner.execute("SELECT state FROM shardd.archive")) == {
        "sent": len(claimed),
        "cancelled": len(done(cancelled)),
    }


async def test_one_that_the_gate_refuses_keeps_no_other_back(
    owner: psycopg.Connection[Any], admin: JobAdmin, dsn: str, superuser_dsn: str
) -> None:
    """An earlier version let it in, as it let in what this one would not."""
    ids = insert_jobs(owner, "a", 5, order_group="g")
    with connect(superuser_dsn) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute("UPDATE shardd.jobs SET details = '[]' WHERE id = %s", [ids[1]])
        superuser.execute("UPDATE shardd.jobs SET body = E'\\u200b' WHERE id = %s", [ids[3]])
    end(owner, ids)
    found = {one.id: (one.done, one.refusal) for one in await retry(admin, FAILED)}
    assert found == {
        ids[0]: (True, None),
        ids[1]: (False, "details is a JSON array, not an object"),
        ids[2]: (True, None),
        ids[3]: (False, "body is empty"),
        ids[4]: (True, None),
    }
    assert states(dsn) == dict(zip(ids, ["queued", "failed", "scheduled", "failed", "scheduled"], strict=True))
    assert len(await retry(admin, FAILED)) == 2


# ---- what was seen


async def test_rows_of_a_transaction_that_was_open_are_in_no_snapshot(
    admin: JobAdmin, owner: psycopg.Connection[Any], dsn: str
) -> None:
    (seen, ended), failing = insert_jobs(owner, "a", 2), insert_jobs(owner, "a", 3)
    end(owner, [ended])
    with psycopg.connect(dsn) as other:
        other.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) SELECT 'a', '+4915112345678', 'x' FROM generate_series(1, 5)"
        )
        end(other, failing)
        snapshot = await admin.snapshot()
    then = Traits(device_ids=["a"], snapshot=snapshot)
    assert [some.jobs for some in await admin.count_cancels(then)] == [1]
    assert [some.jobs for some in await admin.count_retries(then)] == [1]
    assert done(await retry(admin, then)) == [ended]
    assert done(await cancel(admin, then)) == [seen], "what was retried since is another decision"
    now = Traits(device_ids=["a"], snapshot=await admin.snapshot())
    assert len(done(await retry(admin, now))) == 4
    assert len(done(await cancel(admin, Traits(device_ids=["a"])))) == 10


async def test_what_was_restored_from_another_server_is_in_every_snapshot(
    admin: JobAdmin, owner: psycopg.Connection[Any]
) -> None:
    """Its transactions had numbers that are still to come here."""
    waits, ended = insert_jobs(owner, "a", 2)
    end(owner, [ended])
    owner.execute("UPDATE shardd.jobs SET created_xid = '99999999999'")
    owner.execute("UPDATE shardd.archive SET settled_xid = '99999999999'")
    now = Traits(device_ids=["a"], snapshot=await admin.snapshot())
    assert done(await retry(admin, now)) == [ended]
    assert done(await cancel(admin, now)) == [waits]
