"""Revocations on the command line, with a real daemon: a wrong price went out, and is taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

MakeDaemon = Callable[..., Daemon]
ADD = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, campaign) "
    "SELECT 'd' || 1 + g %% 2, '+49151' || 1000000 + g, 'only 1 EUR', 'spring' FROM generate_series(1, %s) g"
)


@pytest.fixture
async def daemon(make_daemon: MakeDaemon) -> Daemon:
    daemon = make_daemon()
    await daemon.start()
    return daemon


@pytest.fixture
async def spring(daemon: Daemon, producer: Producer) -> Command:
    """A campaign that has sent 6 messages from 2 devices; the campaign is paused, and 2 more of its jobs wait."""
    producer.add_devices(2)
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    producer.execute(ADD, 6)
    await producer.until_finished(daemon, 6)
    producer.execute("UPDATE shardd.campaigns SET state = 'paused'")
    producer.execute(ADD, 2)
    return Command(daemon.config_file)


def words(text: str) -> str:
    return " ".join(text.split())


def deleted(daemon: Daemon) -> dict[str, str]:
    """The ids of the messages that the devices were to delete, and the device."""
    return {message["revokes"]: message["device"] for message in daemon.messages() if message["kind"] == "revoke"}


async def test_a_campaign_is_revoked_by_the_devices_that_sent_it_once_however_often_it_is_asked(
    daemon: Daemon, producer: Producer, spring: Command
) -> None:
    producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+491511000001')")
    planned = await spring("campaign", "revoke", "spring", "--dry-run")
    assert (planned.code, planned.err) == (0, "note: 2 jobs of campaign spring still wait: cancel it\n")
    assert [line.split() for line in planned.out.splitlines()][1:] == [
        ["5", "sent", "marketing", "spring"],
        ["1", "sent", "marketing", "spring", "the", "recipient", "opted", "out"],
        ["would", "revoke", "5", "jobs;", "nothing", "was", "changed"],
    ]
    unasked = await spring("campaign", "revoke", "spring")
    assert (unasked.code, unasked.out) == (64, "")
    assert "(Revoke 5 sent jobs?)" in unasked.err
    assert deleted(daemon) == {}

    done = await spring("campaign", "revoke", "spring", "--yes")
    assert (done.code, done.out) == (64, "revoking 5 jobs\n")
    assert "job 1: the recipient opted out\n" in done.err
    await producer.until_finished(daemon, 11)
    sent = {
        message["message_id"]: message["device"]
        for message in daemon.messages()
        if message["kind"] == "text" and message["job"] != 1
    }
    assert deleted(daemon) == sent

    again = await spring("campaign", "revoke", "spring", "--yes", "--json")
    assert (again.json["revoking"], again.json["already"]) == (0, 5)
    assert len([message for message in daemon.messages() if message["kind"] == "revoke"]) == 5
    assert producer.execute(
        "SELECT state, count(*) FROM shardd.outcomes WHERE campaign = 'spring' GROUP BY 1 ORDER BY 1"
    ) == [
        ("queued", 2),
        ("sent", 6),
    ]
    acts = [result for act, target, result in producer.acts() if (act, target) == ("revoke", "campaign spring")]
    assert acts == ["begun", "done"]
    shown = await spring("campaign", "show", "spring")
    assert "revocations 5 sent" in words(shown.out)
    unknown = await spring("campaign", "revoke", "autumn")
    assert unknown.err == "shardd: campaign autumn is unknown; the others: shardd campaign list\n"


async def test_jobs_are_revoked_by_their_ids(daemon: Daemon, producer: Producer, spring: Command) -> None:
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) VALUES ('d1', '+4915112345', 'x', '2090-01-01')"
    )
    mixed = await spring("job", "revoke", 1, 9, 4711)
    assert (mixed.code, mixed.out) == (64, "revoking 1 job\n")
    assert mixed.err == ("job 9: it was not sent; cancel it instead: shardd job cancel\njob 4711: unknown\n")
    assert producer.acts()[-2:] == [("revoke", "3 jobs", "begun"), ("revoke", "3 jobs", "done")]
    await producer.until_finished(daemon, 7)
    ((revocation,),) = producer.execute("SELECT revoked_by FROM shardd.outcomes WHERE id = 1")
    assert producer.execute("SELECT state, revokes FROM shardd.outcomes WHERE id = %s", revocation) == [("sent", 1)]
    assert f"revoked by job {revocation}, sent 20" in words((await spring("job", "show", 1)).out)
    assert "deletes the message of job 1" in words((await spring("job", "show", revocation)).out)
    again = await spring("job", "revoke", 1, revocation)
    assert (again.code, again.out) == (64, "revoking 0 jobs; 1 job was already done\n")
    assert again.err.startswith(f"job {revocation}: it is itself a revocation")


async def test_revocations_of_a_device_stay_with_it(producer: Producer, spring: Command) -> None:
    producer.execute("UPDATE shardd.devices SET paused_at = now()")
    assert (await spring("job", "revoke", 1)).code == 0
    replaced = await spring("device", "replace", "d2", "d1")
    assert "1 revocation of its messages stays with d2, because only d2 can send it\n" in replaced.out


async def test_what_cannot_be_deleted_when_it_is_claimed_fails_and_says_why(
    daemon: Daemon, producer: Producer, spring: Command
) -> None:
    producer.execute("UPDATE shardd.devices SET paused_at = now()")
    assert (await spring("job", "revoke", 1)).code == 0
    producer.execute("SELECT shardd.erase_jobs(array['491511000001'], array[1::bigint])")
    producer.execute("UPDATE shardd.devices SET paused_at = NULL")
    await producer.until_finished(daemon, 7)
    row: tuple[Any, ...] = producer.execute("SELECT state, error, error_class FROM shardd.outcomes WHERE revokes = 1")[
        0
    ]
    assert (row[0], row[2]) == ("failed", "content")
    assert row[1].startswith("the message cannot be deleted any more")
    assert deleted(daemon) == {}
