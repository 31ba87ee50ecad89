"""`shardd group` with a real database and without a daemon; test_groups has the daemon's side."""

from __future__ import annotations

import pytest

from tests.support.command import Command
from tests.support.daemon import Producer


async def test_groups_are_made_filled_and_emptied(shardd: Command, producer: Producer) -> None:
    producer.add_devices(4)
    producer.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'd4'")
    made = await shardd("group", "add", "team", "-", "--label", "the team", stdin="d1\nd2\n")
    assert (made.code, made.out) == (0, "made group team of 2 devices\n")
    more = await shardd("group", "add", "team", "d2", "d3", "d4", "nobody")
    assert (more.code, more.out) == (64, "put 1 device into group team\n")
    assert more.err == "2 devices d4, nobody: unknown; add devices with: shardd device add\n"
    assert (await shardd("group", "add", "team")).out == "group team is there\n"

    (row,) = (await shardd("group", "list", "--json")).json
    assert (row["id"], row["label"], row["devices"], row["able"], row["pooled"]) == ("team", "the team", 3, 3, 0)
    for _ in range(2):
        out = await shardd("group", "remove", "team", "d1")
        assert out.code == 0
    assert out.out == "took 0 devices out of group team\nnot in it: d1\n"
    members = (await shardd("group", "show", "team", "--json")).json["members"]
    assert [member["device_id"] for member in members] == ["d2", "d3"]


async def test_what_a_device_was_given_goes_back_when_it_leaves(shardd: Command, producer: Producer) -> None:
    producer.add_devices(2)
    await shardd("group", "add", "team", "d1", "d2")
    producer.execute(
        "INSERT INTO shardd.jobs (device_group, recipient, body, run_at) SELECT 'team', '+4915112345', 'hi', "
        "now() + g * interval '1 day' FROM generate_series(0, 3) g"
    )
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+4915112345', 'its own')")
    # As a running shardd gives them: one to each, one in flight; one waits for the end of a backoff.
    producer.execute("UPDATE shardd.jobs SET device_id = CASE WHEN id = 2 THEN 'd2' ELSE 'd1' END WHERE id <= 4")
    producer.execute("UPDATE shardd.jobs SET claimed_epoch = 1 WHERE id = 3")
    out = await shardd("group", "remove", "team", "d1")
    assert (out.code, out.out) == (0, "took 1 device out of group team; 2 jobs went back to its pool\n")
    rows = producer.execute("SELECT id, device_id FROM shardd.jobs ORDER BY id")
    assert rows == [(1, None), (2, "d2"), (3, "d1"), (4, None), (5, "d1")]


async def test_a_group_tells_who_can_send_and_who_is_known(shardd: Command, producer: Producer) -> None:
    producer.add_devices(2)
    await shardd("group", "add", "team", "d1", "d2")
    producer.execute("UPDATE shardd.devices SET state = 'banned', reason = 'spam' WHERE id = 'd1'")
    producer.execute("INSERT INTO shardd.contacts VALUES ('team', '4915111', 'd1'), ('team', '4915112', 'd1')")
    producer.execute("INSERT INTO shardd.jobs (device_group, recipient, body) VALUES ('team', '+4915112345', 'hi')")
    shown = await shardd("group", "show", "team")
    words = " ".join(shown.out.split())
    assert "devices 1 of 2 can send pool 1 job without a device yet" in words
    assert "d1 sandbox banned 0 2 spam" in words
    assert "2 of 2 devices are sandbox: their messages reach nobody" in words
    producer.execute("UPDATE shardd.devices SET paused_at = now(), paused_why = 'holidays' WHERE id = 'd2'")
    assert "1 job without a device yet: none of its devices can send" in (await shardd("group", "show", "team")).out


async def test_a_group_is_deleted_only_when_no_job_names_it(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    await shardd("group", "add", "team", "d1")
    producer.execute(
        "INSERT INTO shardd.jobs (device_group, recipient, body, run_at) "
        "VALUES ('team', '+4915112345', 'hi', now() + interval '1 day')"
    )
    refused = await shardd("group", "delete", "team")
    assert (refused.code, refused.out) == (64, "")
    assert refused.err.startswith("shardd: group team is not deleted, because 1 live job names it: wait until")
    producer.execute("SELECT shardd.end_jobs(array(SELECT id FROM shardd.jobs), 'cancelled', NULL, NULL)")
    assert (await shardd("group", "delete", "team")).out == "deleted group team\n"
    assert (await shardd("group", "list", "--json")).json == []
    assert producer.execute("SELECT count(*) FROM shardd.device_group_members") == [(0,)]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["add", "a b"], "shardd: a b: not a group id; write at most 64"),
        (["add", "a", "d 1"], "shardd: d 1: not a device id"),
        (["remove", "a", "-"], "shardd: no device is named"),
        (["remove", "nobody", "d1"], "shardd: group nobody is unknown; the others: shardd group list"),
        (["show", "nobody"], "shardd: group nobody is unknown; the others: shardd group list"),
        (["delete", "nobody"], "shardd: group nobody is unknown; the others: shardd group list"),
    ],
)
async def test_bad_input_is_refused_in_one_line(shardd: Command, arguments: list[str], error: str) -> None:
    ran = await shardd("group", *arguments)
    assert (ran.code, ran.out) == (64, "")
    assert error in ran.err
