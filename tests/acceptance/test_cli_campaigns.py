"""`shardd campaign` with a real database and without a daemon; test_campaigns has the daemon's side."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.daemon import Producer


def add_jobs(producer: Producer, campaign: str, count: int, device: str = "d1") -> None:
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) "
        "SELECT %s, '+49151' || 1000000 + g, 'hi', %s FROM generate_series(1, %s) g",
        *(device, campaign, count),
    )


def end_jobs(producer: Producer, state: str, count: int, device: str = "d1") -> None:
    """Call the oldest jobs of a device ended."""
    producer.execute(
        "SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs WHERE device_id = %s ORDER BY id LIMIT %s), %s, NULL, NULL)",
        *(device, count, state),
    )


async def details(shardd: Command, campaign: str) -> dict[str, Any]:
    shown: dict[str, Any] = (await shardd("campaign", "show", campaign, "--json")).json
    return shown


def words(text: str) -> str:
    return " ".join(text.split())


async def test_campaigns_are_added_changed_and_listed(shardd: Command) -> None:
    added = await shardd("campaign", "add", "a", "-", "--weight", "2", "--device-cap", "50", stdin="b\n# no\nb\n")
    assert (added.code, added.out, added.err) == (0, "added 2 campaigns\n", "")
    again = await shardd("campaign", "add", "a", "c", "--weight", "2", "--device-cap", "50", "--paused")
    assert (again.code, again.out) == (0, "added 1 campaign\nalready exists: a\n")
    other = await shardd("campaign", "add", "a")
    assert (other.code, other.out) == (64, "")
    assert other.err.startswith("campaign a: already exists with other terms, and is unchanged")

    changed = await shardd("campaign", "set", "a", "nobody", "--device-cap", "0", "--label", "spring")
    assert (changed.code, changed.out) == (64, "changed 1 campaign\n")
    assert changed.err == "campaign nobody: unknown; the others: shardd campaign list\n"
    rows = {row["id"]: row for row in (await shardd("campaign", "list", "--json")).json}
    assert {name: (row["state"], row["weight"], row["device_cap"], row["label"]) for name, row in rows.items()} == {
        "a": ("running", 2.0, None, "spring"),
        "b": ("running", 2.0, 50, None),
        "c": ("paused", 2.0, 50, None),
    }
    assert [row["id"] for row in (await shardd("campaign", "list", "--state", "paused", "--json")).json] == ["c"]
    table = (await shardd("campaign", "list", "--limit", "2")).out
    assert "2 campaigns; older ones: --limit" in table


async def test_a_campaign_is_paused_and_resumed_as_often_as_you_like(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    await shardd("campaign", "add", "spring")
    add_jobs(producer, "spring", 2)
    paused = await shardd("campaign", "pause", "spring", "--why", "the shop is closed")
    assert (paused.code, paused.out) == (0, "paused 1 campaign\n")
    since = (await details(shardd, "spring"))["state_since"]
    again = await shardd("campaign", "pause", "spring")
    assert (again.code, again.out) == (0, "nothing to do: campaign spring is paused already\n")
    shown = await details(shardd, "spring")
    assert (shown["state_since"], shown["why"]) == (since, "the shop is closed")
    assert shown["progress"]["waits_for"] == "a person: it is paused, the shop is closed"
    waits = producer.execute("SELECT DISTINCT waits_for FROM shardd.outcomes")
    assert waits == [("its campaign: paused, the shop is closed",)]
    assert "to do let it send again: shardd campaign resume spring" in words(
        (await shardd("campaign", "show", "spring")).out
    )

    assert (await shardd("campaign", "resume", "spring")).out == "resumed 1 campaign\n"
    assert (await shardd("campaign", "resume", "spring")).out == "nothing to do: campaign spring is not paused\n"
    assert (await shardd("campaign", "set", "spring", "--weight=1")).out == (
        "nothing to do: campaign spring is like that already\n"
    )
    recorded = producer.execute("SELECT act FROM shardd.acts ORDER BY id")
    assert [act for (act,) in recorded] == ["add", "pause", "resume"]
    assert (await details(shardd, "spring"))["why"] is None
    assert producer.execute("SELECT DISTINCT waits_for FROM shardd.outcomes") == [("its turn",)]


async def test_cancelling_is_asked_first_and_final(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    await shardd("campaign", "add", "spring", "summer")
    add_jobs(producer, "spring", 3)
    unasked = await shardd("campaign", "cancel", "spring")
    assert (unasked.code, unasked.out) == (64, "")
    assert "(Cancel campaign spring for good? 3 waiting jobs end unsent)" in unasked.err
    assert (await details(shardd, "spring"))["state"] == "running"

    done = await shardd("campaign", "cancel", "spring", "--yes", "--why", "wrong text")
    assert (done.code, done.out) == (0, "cancelled 1 campaign with 3 waiting jobs\n")
    again = await shardd("campaign", "cancel", "spring")
    assert (again.code, again.out) == (0, "cancelled already: spring\n")
    for command in ("pause", "resume", "add"):
        refused = await shardd("campaign", command, "spring")
        assert (refused.code, refused.out) == (64, "")
        assert refused.err == "campaign spring: cancelled, and that is final; begin a new one under another id\n"
    # No shardd runs that would move them, but they wait for nothing any more.
    assert producer.execute("SELECT DISTINCT waits_for FROM shardd.outcomes") == [
        ("nothing: its campaign was cancelled",)
    ]
    shown = await details(shardd, "spring")
    assert shown["progress"]["waits_for"] == "nothing: it was cancelled, and its jobs end while shardd runs"
    both = await shardd("campaign", "cancel", "spring", "summer", "nobody", "--yes")
    assert (both.code, both.out) == (64, "cancelled 1 campaign with 0 waiting jobs\ncancelled already: spring\n")


async def test_progress_is_counted_by_state_and_device(shardd: Command, producer: Producer) -> None:
    producer.add_devices(13)
    await shardd("campaign", "add", "spring", "other")
    for number in range(1, 14):
        add_jobs(producer, "spring", 10, f"d{number}")
    add_jobs(producer, "other", 5)
    for state, count in (("sent", 5), ("failed", 2), ("in_doubt", 1), ("opted_out", 1)):
        end_jobs(producer, state, count)
    end_jobs(producer, "expired", 1, "d2")
    shown = await details(shardd, "spring")
    progress = shown["progress"]
    assert {state: count for state, count in progress["states"].items() if count} == {
        "queued": 120,
        "sent": 5,
        "failed": 2,
        "in_doubt": 1,
        "opted_out": 1,
        "expired": 1,
    }
    assert (progress["total"], progress["ended"], progress["percent"]) == (130, 10, 7.69)
    assert progress["rate"] == 5.0  # of the last minute: they ended just now
    assert progress["seconds_left"] == 60 * 120 / 5
    assert len(shown["devices"]) == 13
    assert {row["device_id"]: row["sent"] for row in shown["devices"] if row["sent"]} == {"d1": 5}
    other = "array(SELECT id FROM shardd.jobs WHERE campaign = 'other')"
    producer.execute(f"SELECT shardd.end_jobs({other}, 'failed', NULL, NULL)")
    assert re.search(r"^other +finished +0 ", (await shardd("campaign", "list")).out, re.MULTILINE)
    listed = {
        one["id"]: (one["state"], one["shown_state"]) for one in (await shardd("campaign", "list", "--json")).json
    }
    assert listed == {"other": ("running", "finished"), "spring": ("running", "running")}
    assert {name: (await details(shardd, name))["shown_state"] for name in listed} == {
        "other": "finished",
        "spring": "running",
    }
    assert "state finished" in words((await shardd("campaign", "show", "other")).out)
    shown_words = words((await shardd("campaign", "show", "spring")).out)
    for piece in (
        "7.7 % of 130 jobs",
        "ended 5 sent, 2 failed, 1 in_doubt, 1 expired, 1 opted_out",
        "rate 5.0 messages a minute, over the last 1m",
        "time left at least 24m at this rate; limits and quiet hours of the devices make it longer",
        "and 3 more devices; all of them: --json",
    ):
        assert piece in shown_words, piece


async def test_a_campaign_that_stands_still_says_why(shardd: Command, producer: Producer) -> None:
    producer.add_devices(3)
    await shardd("campaign", "add", "spring", "--device-cap", "2")
    assert (await details(shardd, "spring"))["progress"]["waits_for"] == "its first job"
    for device in ("d1", "d2", "d3"):
        add_jobs(producer, "spring", 4, device)
    producer.execute("UPDATE shardd.devices SET state = 'logged_out' WHERE id = 'd1'")
    held = (await details(shardd, "spring"))["progress"]
    assert (held["waits_for"], held["held_back"], held["held_back_by"]) == (
        "the turns of its devices; when one may send: shardd device show ID",
        4,
        "1 device logged_out",
    )
    assert "held back 4 jobs: 1 device logged_out" in words((await shardd("campaign", "show", "spring")).out)

    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd2'")
    producer.execute("INSERT INTO shardd.campaign_days VALUES ('spring', 'd3', (now() AT TIME ZONE 'UTC')::date, 2)")
    held = (await details(shardd, "spring"))["progress"]
    assert held["waits_for"] == "1 device logged_out, 1 device paused, 1 device at the cap of 2 a day"

    await shardd("campaign", "add", "slow")
    add_jobs(producer, "slow", 2, "d3")
    producer.execute(
        "INSERT INTO shardd.lane_waits VALUES ('d3', 'slow/marketing', 'its gap', now() + interval '1 hour')"
    )
    slow = (await details(shardd, "slow"))["progress"]
    assert (slow["held_back"], slow["waits_for"]) == (
        0,
        "the turns of its devices; when one may send: shardd device show ID",
    )
    producer.execute("UPDATE shardd.lane_waits SET why = 'its daily limit', until = '2090-01-01 00:00+00'")
    slow = (await details(shardd, "slow"))["progress"]
    assert slow["held_back"] == 2
    assert slow["waits_for"] == "1 device waits for: its daily limit, until 2090-01-01 00:00 UTC"

    await shardd("campaign", "add", "later")
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, campaign, run_at) "
        "VALUES ('d3', '+49151100000', 'hi', 'later', now() + interval '150 minutes')"
    )
    assert (await details(shardd, "later"))["progress"][
        "waits_for"
    ] == "the time of its jobs: the next one is due in 2h"

    await shardd("campaign", "add", "pooled")
    await shardd("group", "add", "dead", "d1")
    producer.execute(
        "INSERT INTO shardd.jobs (device_group, recipient, body, campaign) VALUES ('dead', '+49151100000', 'hi', 'pooled')"
    )
    pooled = await details(shardd, "pooled")
    assert pooled["progress"]["waits_for"] == "group dead: 0 of 1 device can send"
    assert pooled["pools"] == [{"device_group": "dead", "jobs": 1, "devices": 1, "able": 0}]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["add", "a b"], "shardd: a b: not a campaign id; write at most 64"),
        (["add", "-"], "shardd: no campaign is named: write its id"),
        (["add", "a", "--weight", "0"], "--weight: 0 is too small; write a value from 0.001 to 1000"),
        (["add", "a", "--weight", "nan"], "shardd: --weight: nan is not a number; write one such as 2 or 0.5"),
        (["add", "a", "--device-cap", "-1"], "--device-cap: -1 is too small"),
        (["set", "a"], "shardd: say what to change: --label, --weight or --device-cap"),
        (["show", "nobody"], "shardd: campaign nobody is unknown; the others: shardd campaign list"),
        (["pause", "nobody"], "campaign nobody: unknown; the others: shardd campaign list"),
        (["cancel", "nobody"], "campaign nobody: unknown; the others: shardd campaign list"),
    ],
)
async def test_bad_input_is_refused_in_one_line(shardd: Command, arguments: list[str], error: str) -> None:
    ran = await shardd("campaign", *arguments)
    assert (ran.code, ran.out) == (64, "")
    assert error in ran.err
