"""`shardd job retry` and `shardd job cancel` for many jobs: announced, confirmed, reported, and repeatable."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.support.command import PATIENCE, PROGRAM, Command
from tests.support.daemon import Producer


@pytest.fixture
def filled(producer: Producer) -> Producer:
    """Failed jobs 1 to 6 (3 of a campaign, with errors of two kinds), 7 and 8 in doubt, 9 to 12 queued."""
    producer.add_devices(2)
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    insert = (
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign, class, metadata) "
        "SELECT 'd1', '+4915112345', 'hi', %s, %s, '{\"order\": 7}' FROM generate_series(1, %s)"
    )
    for campaign, job_class, number in (("spring", "marketing", 3), (None, "service", 3), (None, "reply", 6)):
        producer.execute(insert, campaign, job_class, number)
    end = "SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs WHERE id BETWEEN %s AND %s), %s, 'why', %s)"
    for first, last, state, error_class in (
        (1, 4, "failed", "timeout"),
        (5, 6, "failed", "content"),
        (7, 8, "in_doubt", "timeout"),
    ):
        producer.execute(end, first, last, state, error_class)
    return producer


async def test_a_dry_run_counts_and_changes_nothing(shardd: Command, filled: Producer) -> None:
    before = filled.states()
    ran = await shardd("job", "retry", "--error-class", "timeout", "--dry-run")
    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["jobs", "state", "class", "campaign", "why", "not"],
        ["3", "failed", "marketing", "spring"],
        ["1", "failed", "service"],
        ["would", "retry", "4", "jobs;", "nothing", "was", "changed"],
    ]
    told = (await shardd("job", "cancel", "--device", "d1", "--dry-run", "--json")).json
    count = {"state": "queued", "class": "reply", "campaign": None, "obstacle": None, "jobs": 4}
    assert told == {"dry_run": True, "cancelled": 4, "counts": [count]}
    assert filled.states() == before


async def test_what_is_said_again_is_done_once(shardd: Command, filled: Producer) -> None:
    once = await shardd("job", "retry", "--error-class", "timeout", "--yes")
    assert (once.code, once.out, once.err) == (0, "retried 4 jobs\n", "")
    again = await shardd("job", "retry", "--error-class", "timeout", "--yes")
    hint = "no job of these failed; 2 jobs in doubt: name the state, such as --state=in_doubt\n"
    assert (again.code, again.out, again.err) == (0, f"retried 0 jobs\n{hint}", "")
    by_id = await shardd("job", "retry", 1, 2, 5)
    assert (by_id.code, by_id.out, by_id.err) == (0, "retried 1 job; 2 jobs were already done\n", "")

    cancelled = await shardd("job", "cancel", "--campaign", "spring", "--yes", "--json")
    assert cancelled.json == {"dry_run": False, "cancelled": 3, "already": 0, "left": []}
    again = await shardd("job", "cancel", "--campaign", "spring", "--yes", "--json")
    assert (again.code, again.json) == (0, {"dry_run": False, "cancelled": 0, "already": 0, "left": []})
    assert filled.states() == {"queued": 6, "cancelled": 3, "failed": 1, "in_doubt": 2}


async def test_doubts_are_retried_only_where_they_are_named(shardd: Command, filled: Producer) -> None:
    await shardd("job", "retry", "--device", "d1", "--yes")
    assert filled.states() == {"queued": 10, "in_doubt": 2}
    named = await shardd("job", "retry", "--device", "d1", "--state", "in_doubt", "--yes")
    assert "2 jobs in doubt may have reached the recipient" in named.err
    assert filled.states() == {"queued": 12}


async def test_what_came_to_be_in_doubt_after_the_question_is_another_question(
    shardd: Command, filled: Producer
) -> None:
    """The person agreed to one job that may arrive twice, not to two."""
    terminal, keyboard = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "job", "retry", "1", "2", "7"),
        env=shardd.environ,
        stdin=keyboard,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(keyboard)
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        asked = (await process.stderr.readuntil(b"in doubt? [y/N]:")).decode()
        assert "Retry 2 failed jobs and 1 job in doubt?" in asked
        filled.execute("SELECT shardd.bring_back('{2}')")
        filled.execute("SELECT shardd.end_jobs('{2}', 'in_doubt', NULL, NULL)")
        os.write(terminal, b"y\n")
        out, err = await process.communicate()
    os.close(terminal)
    assert (process.returncode, out.decode().strip()) == (64, "retried 2 jobs")
    assert "job 2: changed in the meantime; look again" in err.decode()
    assert filled.execute("SELECT state FROM shardd.outcomes WHERE id IN (1, 2, 7) ORDER BY id") == [
        ("queued",),
        ("in_doubt",),
        ("queued",),
    ]


async def test_jobs_of_a_cancelled_campaign_do_not_come_back(shardd: Command, filled: Producer) -> None:
    filled.execute("UPDATE shardd.campaigns SET state = 'cancelled'")
    why = "the campaign was cancelled, which is final; insert a new job into another campaign"
    ran = await shardd("job", "retry", "--campaign", "spring", "--yes")
    assert (ran.code, ran.out, ran.err) == (64, "retried 0 jobs\n", f"3 jobs: {why}\n")
    mixed = await shardd("job", "retry", "--state", "failed", "--yes")
    assert (mixed.code, mixed.out, mixed.err) == (64, "retried 3 jobs\n", f"3 jobs 1, 2, 3: {why}\n")
    told = await shardd("job", "retry", 1, "--json")
    assert (told.code, told.json["left"]) == (64, [{"why": why, "jobs": 1, "ids": [1]}])


async def test_a_job_whose_time_is_over_does_not_come_back(shardd: Command, filled: Producer) -> None:
    filled.execute("UPDATE shardd.archive SET expires_at = now() WHERE id = 1")
    filled.execute("SELECT shardd.bring_back('{2}')")
    filled.execute("SELECT shardd.end_jobs('{2}', 'expired', NULL, NULL)")
    ran = await shardd("job", "retry", 1, 2, 3)
    assert (ran.code, ran.out) == (64, "retried 1 job\n")
    assert ran.err == "2 jobs 1, 2: expires_at has passed, and it is never sent later; insert a new job\n"


async def test_ids_and_traits_together_name_what_is_both(shardd: Command, filled: Producer) -> None:
    ran = await shardd("job", "retry", 1, 5, "--error-class", "timeout")
    assert (ran.code, ran.out, ran.err) == (64, "retried 1 job\n", "job 5: does not match the options\n")


async def test_a_job_shows_what_its_producer_said(shardd: Command, filled: Producer) -> None:
    filled.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, variables, campaign, order_group, expires_at) "
        "VALUES ('d1', '+4915112345', 'hi {name}', '{\"name\": \"Ada\"}', 'spring', 'steps', '2090-01-01')"
    )
    words = " ".join((await shardd("job", "show", 13)).out.split())
    for part in (
        "class marketing",
        "campaign spring",
        "order group steps",
        "expires at 2090-01-01",
        'variables {"name": "Ada"}',
        "hi Ada",
    ):
        assert part in words
    shown = (await shardd("job", "show", 1, "--json")).json
    assert (shown["class"], shown["metadata"], shown["error_class"]) == ("marketing", {"order": 7}, "timeout")
    listed = await shardd("job", "list", "--campaign", "spring")
    assert "13" in listed.out
    assert "spring" in listed.out


async def test_a_job_of_a_group_has_no_device_yet(shardd: Command, filled: Producer) -> None:
    filled.execute("INSERT INTO shardd.device_groups (id) VALUES ('all')")
    filled.execute("INSERT INTO shardd.jobs (device_group, recipient, body) VALUES ('all', '+4915112345', 'hi')")
    assert "(all)" in (await shardd("job", "list", "--limit", 1)).out
    words = " ".join((await shardd("job", "show", 13)).out.split())
    assert "device group all" in words
    assert "waits for a device of its group" in words
