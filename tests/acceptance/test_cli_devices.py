"""`shardd device` with a real database and without a daemon; test_cli_jobs has the daemon's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardd.embedded.home import find_home
from shardd.embedded.server import pid_in
from shardd.hashing import shard_of
from tests.support.command import Command, Ran
from tests.support.daemon import Producer


async def test_devices_are_added_shown_paused_and_removed(shardd: Command, producer: Producer) -> None:
    added = await shardd("device", "add", "a1", "-", "--transport=sandbox", "--label=try", stdin="a2\n\n# no\na3\na2\n")
    assert (added.code, added.err) == (0, "")
    assert added.out == "added 3 sandbox devices: their messages reach nobody\n"

    again = await shardd("device", "add", "a3", "a4", "--transport", "sandbox")
    assert (again.code, again.err) == (64, "device a3: already exists; nothing was changed\n")
    assert again.out.startswith("added 1 sandbox device:")

    paused = await shardd("device", "pause", "a2", "nobody", "--why", "holidays")
    assert (paused.code, paused.out, paused.err) == (64, "paused 1 device\n", "device nobody: unknown\n")
    rows = (await shardd("device", "list", "--json")).json
    assert [(row["id"], row["shown_state"], row["paused_why"]) for row in rows] == [
        ("a1", "ready", None),
        ("a2", "paused", "holidays"),
        ("a3", "ready", None),
        ("a4", "ready", None),
    ]
    assert (await shardd("device", "list", "--state", "paused", "--json")).json == [rows[1]]
    table = (await shardd("device", "list")).out
    assert "4 devices: 3 ready, 1 paused" in table
    assert "4 of 4 devices are sandbox: their messages reach nobody" in table

    assert (await shardd("device", "pause", "a2")).out == "nothing to do: device a2 is paused already\n"
    assert (await shardd("device", "list", "--state", "paused", "--json")).json == [rows[1]]
    assert (await shardd("device", "resume", "a1", "a2", "a3")).out == "resumed 1 device\nnot paused: a1, a3\n"
    same = "nothing to do: device a1 is like that already\n"
    assert (await shardd("device", "set", "a1", "--label=try", "--gap=default")).out == same
    acts = producer.execute("SELECT act, target FROM shardd.acts ORDER BY id")
    assert acts == [("add", "3 devices"), ("add", "device a4"), ("pause", "device a2"), ("resume", "device a2")]
    assert (await shardd("device", "list", "--state", "paused")).out == (
        "no such devices; all of them: shardd device list\n"
    )
    assert (await shardd("device", "list", "--state", "paused", "--json")).json == []

    removed = await shardd("device", "remove", "a1", "a2", "a1")
    assert (removed.code, removed.out) == (0, "removed 2 devices\n")
    gone = await shardd("device", "show", "a1")
    assert (gone.code, gone.out) == (64, "")
    assert gone.err == "shardd: device a1 is unknown; the others: shardd device list\n"
    assert "added 1 sandbox device" in (await shardd("device", "add", "a1", "--transport", "sandbox")).out
    assert producer.execute("SELECT count(*) FROM shardd.devices WHERE removed_at IS NULL") == [(3,)]


async def test_a_device_tells_its_state_what_to_do_and_its_limits_but_no_secret(
    shardd: Command, producer: Producer
) -> None:
    added = await shardd(
        *("device", "add", "n62-1", "--transport", "whatsapp", "--gap", "1s..2m", "--daily-limit", "40", "--warm"),
        *("--proxy", "socks5://me:hunter2@proxy.example:1080", "--settings", '{"api_token": "hunter3", "a": [1]}'),
    )
    assert (added.code, added.out) == (0, "added 1 whatsapp device; pair it: shardd device pair n62-1\n")
    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('n62-1', '+4915112345', 'hello')")
    producer.execute(
        "INSERT INTO shardd.device_days (device_id, day, sent, last_at) "
        "VALUES ('n62-1', (now() AT TIME ZONE 'UTC')::date, 40, now() - interval '3 hours')"
    )
    producer.execute(
        "UPDATE shardd.devices SET state = 'banned', reason = 'spam', state_until = now() + interval '1 day'"
    )

    shown = await shardd("device", "show", "n62-1")
    words = " ".join(shown.out.split())
    for piece in (
        "state banned why spam since",
        "to do wait: WhatsApp lifts this ban by itself",
        "jobs 1 live job",
        "may send not now: it is banned",
        "sent today 40 of 40; this hour 0 of 200",
        "(3h ago)",
        "gap 1s to 2m; reply 1s to 3s, 3 in a row",
        f"shard {shard_of('n62-1', 2)} of 2",
        "socks5://me:***@proxy.example:1080",
        'settings {"a": [1], "api_token": "***"}',
    ):
        assert piece in words, piece
    row = (await shardd("device", "show", "n62-1", "--json")).json
    assert row["settings"] == {"api_token": "***", "a": [1]}
    assert row["pace"]["service"] == {
        "gap_min": 1.0, "gap_max": 120.0, "hourly_limit": 200, "daily_limit": 40, "quiet": None, "burst": 0,
    }  # fmt: skip
    assert (row["jobs"], row["in_flight"], row["sent_today"], row["shard"]) == (1, 0, 40, shard_of("n62-1", 2))
    assert row["to_do"].startswith("wait: ")
    assert "hunter" not in shown.out + (await shardd("device", "list")).out + str(row)
    assert "sandbox" not in shown.out


async def test_a_device_that_only_a_newer_release_knows_is_shown(shardd: Command, producer: Producer) -> None:
    producer.execute("INSERT INTO shardd.transports VALUES ('pigeon')")
    producer.add_devices(1, "pigeon", prefix="p")
    fault = "its transport, pigeon, is one of a newer shardd: upgrade this host"
    shown = await shardd("device", "show", "p1", "--json")
    assert (shown.code, shown.json["fault"], shown.json["next_visit_at"]) == (0, fault, None)
    assert fault in " ".join((await shardd("device", "show", "p1")).out.split())
    assert [row["id"] for row in (await shardd("device", "list", "--json")).json] == ["p1"]


async def test_a_device_with_waiting_jobs_is_removed_only_with_them(shardd: Command, producer: Producer) -> None:
    producer.add_devices(2)
    producer.add_jobs(6, 2)
    refused = await shardd("device", "remove", "d1")
    assert (refused.code, refused.out) == (64, "")
    assert refused.err.startswith("device d1: not removed, because jobs wait; cancel them with --cancel-jobs")
    assert "shown by: shardd job list --device d1)" in refused.err
    removed = await shardd("device", "remove", "d1", "--cancel-jobs")
    assert (removed.code, removed.out) == (0, "cancelled 3 jobs\nremoved 1 device\n")
    assert producer.states() == {"cancelled": 3, "queued": 3}


async def test_a_paired_device_is_not_removed_behind_its_phones_back(shardd: Command, producer: Producer) -> None:
    producer.add_devices(2)
    producer.execute("UPDATE shardd.devices SET session = '4915112345678:1@s.whatsapp.net' WHERE id = 'd1'")
    ran = await shardd("device", "remove", "d1", "d2", "d3")
    assert (ran.code, ran.out) == (64, "removed 1 device\n")
    assert ran.err.splitlines() == [
        "device d1: not removed, because it is linked to a phone; first: shardd device logout d1",
        "device d3: unknown",
    ]
    producer.add_devices(1, prefix="e")
    producer.execute("UPDATE shardd.devices SET session = '4915112345679:1@s.whatsapp.net' WHERE id = 'e1'")
    ran = await shardd("device", "remove", "d1", "e1")
    assert "first: shardd device logout d1, and so on" in ran.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["add", "a b", "--transport=sandbox"], "shardd: a b: not a device id; write at most 64"),
        (["add", "a", "--transport=sandbox", "--gap=5..6"], "shardd: --gap: 5 has no unit; write 5s for seconds"),
        (["add", "a", "--transport=sandbox", "--gap=5s"], "shardd: --gap: 5s is not a range; write both ends"),
        (
            ["add", "a", "--transport=sandbox", "--gap-min=20s"],
            "shardd: the shortest gap, 20 s, is longer than the longest",
        ),
        (["add", "a", "--transport=sandbox", "--settings=[]"], "--settings: the value is a JSON array, not an object"),
        (
            ["add", "a", "--transport=sandbox", '--settings="hunter2"'],
            "--settings: the value is a JSON string, not an object",
        ),
        (["add", "a", "--transport=sandbox", "--settings={"], "shardd: --settings: the value is not JSON ("),
        (
            ["add", "a", "--transport=sandbox", '--settings={"order": 99999999999999999999}'],
            "--settings: the value has the number 99999999999999999999, which is out of range; write an object such as",
        ),
        (
            ["add", "a", "--transport=sandbox", f'--settings={{"order": 1{"0" * 4400}}}'],
            "the value has the number 1000",
        ),
        (
            ["add", "a", "--transport=sandbox", '--settings={"order": 1e4400}'],
            "the value has the number 1e4400, which is",
        ),
        (["set", "a", '--settings={"order": NaN}'], "--settings: the value is not JSON (it has no NaN)"),
        (["set", "a", f"--settings={'[' * 3000}"], "--settings: the value is"),
        (
            ["add", "a", "--transport=whatsapp", "--proxy=ftp://x:hunter2@h"],
            "shardd: --proxy: the value (not shown) is not",
        ),
        (["add", "a", "--transport=pigeon"], "Invalid value for '--transport': 'pigeon' is not one of"),
        (["pause", "-"], "shardd: no device is named: write its id"),
    ],
)
async def test_bad_input_is_refused_in_one_line(shardd: Command, arguments: list[str], error: str) -> None:
    ran = await shardd("device", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (64, "", 1)
    assert error in ran.err
    assert len(ran.err) < 400
    assert "hunter2" not in ran.err


async def test_what_the_database_refuses_is_told_in_one_line(shardd: Command) -> None:
    refused = await shardd("device", "add", "a", "--transport=sandbox", "--label", "x" * 201)
    assert (refused.code, refused.out, refused.err) == (65, "", "shardd: label has 201 characters. At most 200\n")


async def test_a_database_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    away = await command(tmp_path, "postgresql://shardd@127.0.0.1:1/shardd")("device", "list")
    assert (away.code, away.out, away.err.count("\n")) == (69, "", 1)
    assert "nothing answers at 127.0.0.1:1" in away.err


async def test_a_database_that_is_empty_is_told_in_one_line(tmp_path: Path, empty_dsn: str) -> None:
    empty = await command(tmp_path, empty_dsn)("job", "list")
    assert (empty.code, empty.out, empty.err.count("\n")) == (69, "", 1)
    assert "shardd db migrate" in empty.err


async def test_an_embedded_database_is_served_for_the_command_when_the_daemon_is_down(state_dir: Path) -> None:
    shardd = command(state_dir, None)
    none = await shardd("device", "list")
    assert (none.code, none.err.count("\n")) == (69, 1)
    assert "there is no embedded database" in none.err
    assert (await shardd("db", "migrate")).code == 0
    assert (await shardd("device", "add", "d1", "--transport", "sandbox")).code == 0
    assert [row["id"] for row in (await shardd("device", "list", "--json")).json] == ["d1"]
    assert not pids_on(state_dir)


def command(folder: Path, dsn: str | None) -> Command:
    file = folder / "shards.yaml"
    database = "" if dsn is None else f"database: {{dsn: {json.dumps(dsn)}}}\n"
    file.write_text(f"state_dir: {folder}\n{database}")
    return Command(file)


def pids_on(folder: Path) -> list[int]:
    """The PostgreSQL processes that work in a state folder."""
    home = find_home(folder)
    assert home is not None
    pid = pid_in(home / "data" / "postmaster.pid")
    return [] if pid is None else [pid]


async def test_a_number_of_the_cloud_api_is_that_of_one_device(shardd: Command, producer: Producer) -> None:
    def settings(number: str) -> str:
        return json.dumps({"phone_number_id": number, "token": "${CLOUD_TOKEN}"})

    async def add(*names: str, number: str) -> Ran:
        return await shardd("device", "add", *names, "--transport=cloud_api", "--settings", settings(number))

    assert (await add("support", number="123")).code == 0
    second = await add("sales", number="123")
    assert second.code == 64
    assert "settings.phone_number_id: 123 is that of device support" in second.err
    assert "cannot be that of several devices" in (await add("a", "b", number="124")).err
    assert (await add("sales", number="124")).code == 0
    changed = await shardd("device", "set", "sales", "--settings", settings("123"))
    assert (changed.code, "is that of device support" in changed.err) == (64, True)
    assert (await shardd("device", "set", "support", "--settings", settings("123"))).code == 0
    assert (await shardd("device", "remove", "support")).code == 0
    assert (await shardd("device", "set", "sales", "--settings", settings("123"))).code == 0
    assert producer.execute("SELECT count(*) FROM shardd.devices WHERE removed_at IS NULL") == [(1,)]
