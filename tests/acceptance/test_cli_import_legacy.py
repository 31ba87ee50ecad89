"""`shardd import legacy`: an old system is imported, and its waiting messages are sent once, in order."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.fixtures.legacy import OldMysql, OldPostgresql
from tests.fixtures.pairing import Place
from tests.platform_server.server import PlatformServer
from tests.support.command import PROGRAM, Command
from tests.support.daemon import Producer
from tests.whatsapp_server.seed import seed_postgres

USER = str(UUID(int=1))
WABLAS, WHACENTER, PAIRED, UNPAIRED, ALIEN = (str(UUID(int=number)) for number in range(10, 15))
NO_DELAY = {"min_delay_seconds": 0, "max_delay_seconds": 0}
NOTHING_WAITS = (0, 0, 0, 0)
TOMORROW = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d %H:%M:%S}"


def device(device_id: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"id": device_id, "user_id": USER, "device_name": name, **NO_DELAY, **fields}


def message(number: int, device_id: str = WABLAS, **fields: Any) -> dict[str, Any]:
    usual = {"recipient_phone": f"6281234{number:06}", "content": f"message {number}", "status": "pending"}
    return {"id": str(UUID(int=number)), "device_id": device_id, **usual, **fields}


def ids(*numbers: int) -> list[str]:
    return [str(UUID(int=number)) for number in numbers]


def counts(producer: Producer) -> tuple[int, ...]:
    """Devices, jobs, campaigns and keys."""
    return tuple(
        producer.execute(f"SELECT count(*) FROM shardd.{table}")[0][0]
        for table in ("devices", "jobs", "campaigns", "dedupe_keys")
    )


def of(report: dict[str, Any], what: str) -> dict[str, list[str]]:
    """Ids by reason, without the tables."""
    found: dict[str, list[str]] = {}
    for one in report["refused" if what == "reason" else "noted"]:
        found.setdefault(one[what], []).append(one["id"])
    return found


async def test_an_old_system_moves_over_and_its_messages_leave_once(
    place: Place, platforms: PlatformServer, old_postgresql: OldPostgresql, fresh_number: str
) -> None:
    old, number = old_postgresql, fresh_number
    await prepare_store(old.dsn)
    (session,) = seed_postgres(old.dsn, [number])
    # As libraries left it that knew no hidden ids yet.
    old.execute("DROP TABLE whatsmeow_lid_map; ALTER TABLE whatsmeow_device DROP COLUMN lid")
    old.add(
        "user_devices",
        [
            device(WABLAS, "Shop", platform="Wablas", jid="wablas-token"),
            device(WHACENTER, "Branch", platform="Whacenter", jid="whacenter-id"),
            device(PAIRED, "Phone", phone=number, jid=session, min_delay_seconds=0, max_delay_seconds=1),
            device(UNPAIRED, "Lost", phone="628000", jid="", min_delay_seconds=9, max_delay_seconds=3),
            device(ALIEN, "Pigeon", platform="pigeon"),
        ],
    )
    group = {"group_id": "welcome", "campaign_id": 7}
    broken = {"group_id": "broken"}
    old.add(
        "broadcast_messages",
        [
            message(103, content="third", group_order=3, **group),
            message(102, content="second", group_order=2, **group),
            message(101, content="first { name } 100%\n", group_order=1, **group),
            message(104, WHACENTER, status="queued", sequence_id=USER, recipient_name="Ada"),
            message(105, PAIRED, content="by WhatsApp"),
            message(106, UNPAIRED),
            message(107, WHACENTER, message_type="image", media_url="http://127.0.0.1:1/a.png", content="look"),
            message(108, WHACENTER, message_type="text", media_url="http://127.0.0.1:1/b.png"),
            message(109, scheduled_at=TOMORROW, recipient_phone="0812 340 0109"),
            message(110, scheduled_at="2025-01-01 08:00:00"),
            message(201, status="sent"),
            message(202, status="failed"),
            message(203, status="processing"),
            message(204, status="sending"),
            message(205, sent_at="2026-01-01 00:00:00"),
            message(206, status="wishful"),
            message(207, recipient_phone="bob"),
            message(208, str(UUID(int=99))),
            message(209, ALIEN),
            message(210, message_type="image"),
            message(211, message_type="image", media_url="statics/images/c.png"),
            message(212, message_type="text", content=None),
            message(213, recipient_phone="alice", group_order=2, **broken),
            message(214, group_order=3, **broken),
            message(215, status="failed", group_order=1, group_id="stopped"),
            message(216, group_order=2, group_id="stopped"),
            message(217, group_order=1, **broken),
        ],
    )
    place.daemon.write_config(
        transports={
            "whatsapp": {"default_region": "ID"},
            "wablas": {"base": platforms.base, "default_region": "ID"},
            "whacenter": {"base": platforms.base, "default_region": "ID"},
        }
    )
    command = ("import", "legacy", "--from", old.dsn, "--json")

    rehearsed = await place.shardd(*command, "--dry-run")
    assert rehearsed.code == 65, rehearsed.err
    assert counts(place.producer) == NOTHING_WAITS
    unsure = await place.shardd(*command)
    assert (unsure.code, "for good" in unsure.err, "add --yes" in unsure.err) == (64, True, True)
    assert counts(place.producer) == NOTHING_WAITS
    done = await place.shardd(*command, "--yes")
    report = done.json
    assert done.code == 65, done.err
    assert report == {**rehearsed.json, "dry_run": False}
    assert place.producer.acts() == [("import", "another system", result) for result in ("begun", "done")]

    assert report["devices"] == {"new": 4, "existing": 0, "with_session": 1, "unpaired": 1}
    assert (report["sessions"]["new"], report["campaigns"]) == (1, {"new": 1, "existing": 0})
    assert report["messages"] == {
        "new": 11,
        "existing": 0,
        "overdue": 1,
        "opted_out": 0,
        "in_doubt": 3,
        "refused": 10,
        "finished": {"failed": 2, "sent": 1},
    }
    assert {one["id"] for one in report["in_doubt"]} == set(ids(203, 204, 205))
    assert of(report, "reason") == {
        "platform is not whatsapp, Wablas or Whacenter": [ALIEN],
        "status is unknown; known are pending, queued, processing, sending, sent, failed and the like": ids(206),
        "device_id is not the id of an imported device": ids(208, 209),
        "media_url is empty, but message_type is a kind of media": ids(210),
        "media_url is not an http(s) or data URL": ids(211),
        "the queue refuses its recipient": ids(207, 213),
        "the queue refuses its body": ids(212),
        "an earlier message of its order group was not sent": ids(216, 214),
    }
    assert of(report, "remark") == {
        "its delays are not a range, so the pacing of the config applies": [UNPAIRED],
        "message_type is text, but media_url is set: it is sent as media": ids(108),
        "recipient_phone has no country code: it is read as a number of transports.whatsapp.default_region": ids(109),
    }
    assert "wablas-token" not in done.out + done.err

    rows = place.producer.execute(
        "SELECT id, transport, label, session, state, gap_min, gap_max, warm, settings FROM shardd.devices ORDER BY id"
    )
    assert rows == [
        (WABLAS, "wablas", "Shop", None, "ready", 0, 0, True, {"token": "wablas-token"}),
        (WHACENTER, "whacenter", "Branch", None, "ready", 0, 0, True, {"device_id": "whacenter-id"}),
        (PAIRED, "whatsapp", "Phone", session, "ready", 0, 1, True, {}),
        (UNPAIRED, "whatsapp", "Lost", None, "unpaired", None, None, True, {}),
    ]

    await place.daemon.start()
    assert await place.producer.until_finished(place.daemon, 9) == {"sent": 9, "scheduled": 1, "queued": 1}
    received = platforms.received
    by_wablas = [one.content["message"] for one in received if one.platform == "wablas"]
    assert [text for text in by_wablas if not text.startswith("message")] == [
        "first { name } 100%\n",
        "second",
        "third",
    ]
    assert sorted(text for text in by_wablas if text.startswith("message")) == ["message 110", "message 217"]
    assert {one.key for one in received} == {"wablas-token", "whacenter-id"}
    assert sorted(one.recipient for one in received if one.platform == "whacenter") == [
        f"6281234{sent:06}" for sent in (104, 107, 108)
    ]
    (sent,) = await place.control.wait_messages(1, sender=number)
    assert sent.text == "by WhatsApp"

    metadata = place.producer.execute(
        "SELECT metadata, campaign FROM shardd.outcomes WHERE reference = ANY (%s) ORDER BY reference", ids(101, 104)
    )
    assert metadata == [
        ({"campaign_id": "7", "group_id": "welcome", "group_order": "1"}, "legacy-7"),
        ({"sequence_id": USER, "recipient_name": "Ada"}, None),
    ]

    again = (await place.shardd(*command, "--yes")).json
    assert again["devices"] == {"new": 0, "existing": 4, "with_session": 1, "unpaired": 1}
    assert (again["sessions"]["new"], again["campaigns"]) == (0, {"new": 0, "existing": 1})
    assert (again["messages"]["new"], again["messages"]["existing"]) == (0, 11)
    assert again["refused"] == report["refused"]
    assert len(platforms.received) == 8


async def test_a_person_reads_the_report(shardd: Command, old_mysql: OldMysql) -> None:
    old_mysql.add("user_devices", [device(WABLAS, "Shop", platform="wablas", jid="")])
    old_mysql.add("broadcast_messages", [message(number, recipient_phone="bob") for number in range(1, 31)])
    old_mysql.add("broadcast_messages", [message(40), message(41, status="processing"), message(42, status="Sent")])
    ran = await shardd("import", "legacy", "--from", old_mysql.dsn, "--dry-run", "--timezone", "Asia/Jakarta")
    assert (ran.code, ran.err) == (65, "")
    lines = ran.out.splitlines()
    assert lines[0].endswith("/old: nothing was changed; this would be done")
    assert lines[1:4] == ["devices   1 new", "messages  1 new", "          left out: 1 sent"]
    assert "in doubt, 1 message: may have been sent, decide yourself" in lines
    assert f"  {UUID(int=41)}: processing, device {WABLAS}, to 6281234000041" in lines
    start = lines.index("left out, 30 rows of broadcast_messages: the queue refuses its recipient")
    assert lines[start + 1].startswith(f"  {UUID(int=1)}: recipient 'bob' is neither a phone number")
    assert lines[start + 21] == "  and 10 more (--json lists all)"
    assert any(line.startswith("changed, 1 row of user_devices: its jid is not a credential") for line in lines)
    assert "note: times that name no time zone are read as Asia/Jakarta (--timezone)" in lines


async def test_the_same_system_in_another_form_is_the_same(
    shardd: Command, producer: Producer, old_postgresql: OldPostgresql, old_mysql: OldMysql, tmp_path: Path
) -> None:
    for old in (old_postgresql, old_mysql):
        old.add("user_devices", [device(WABLAS, "Shop", platform="Wablas", jid="token")])
        old.add(
            "broadcast_messages", [message(n, scheduled_at="2030-03-01 09:30:00", campaign_id=n % 3) for n in range(40)]
        )
    sources = [
        old_postgresql.dump(tmp_path / "old.pg"),
        old_postgresql.dsn,
        old_mysql.dsn,
        old_mysql.dump(tmp_path / "old.my"),
    ]
    options = ("--json", "--yes", "--timezone", "Asia/Jakarta", "--expire-after", "90m")
    seen = []
    for source in sources:
        ran = await shardd("import", "legacy", "--from", source, *options)
        assert ran.code == 0, ran.out + ran.err
        seen.append((ran.json["devices"]["new"], ran.json["messages"]["new"], ran.json["messages"]["existing"]))
    assert seen == [(1, 40, 0), (0, 0, 40), (0, 0, 40), (0, 0, 40)]
    # No hours are added: 9:30 in Jakarta, all year seven hours ahead.
    moments = producer.execute("SELECT DISTINCT run_at, expires_at FROM shardd.jobs")
    assert moments == [(datetime(2030, 3, 1, 2, 30, tzinfo=UTC), datetime(2030, 3, 1, 4, 0, tzinfo=UTC))]


async def test_sessions_come_from_a_store_beside_a_dump(
    place: Place, old_postgresql: OldPostgresql, empty_dsn: str, fresh_number: str, tmp_path: Path
) -> None:
    await prepare_store(empty_dsn)
    seed_postgres(empty_dsn, [fresh_number], index=1)
    (newest,) = seed_postgres_again(empty_dsn, fresh_number, 2)
    old_postgresql.execute("CREATE TABLE whatsmeow_device (jid text)")
    old_postgresql.execute(f"INSERT INTO whatsmeow_device VALUES ('{fresh_number}:2@s.whatsapp.net')")
    twin = str(UUID(int=20))
    old_postgresql.add(
        "user_devices", [device(PAIRED, "Phone", phone=f"+{fresh_number}"), device(twin, "Twin", phone=fresh_number)]
    )
    dump = old_postgresql.dump(tmp_path / "old.sql")

    without = await place.shardd("import", "legacy", "--from", dump, "--yes", "--json")
    assert without.code == 0, without.err
    assert without.json["devices"] == {"new": 2, "existing": 0, "with_session": 0, "unpaired": 2}
    assert any(
        remark.startswith("1 WhatsApp sessions in the source are left out") for remark in without.json["remarks"]
    )
    given = await place.shardd("import", "legacy", "--from", dump, "--sessions", empty_dsn, "--yes", "--json")
    assert given.code == 0, given.err
    assert given.json["devices"] == {"new": 0, "existing": 2, "with_session": 1, "unpaired": 1}
    assert given.json["noted"][0] | {"remark": ""} == {
        "table": "user_devices",
        "id": twin,
        "remark": "",
        "detail": PAIRED,
    }
    assert place.row(PAIRED)[:2] == (newest, "ready")
    assert place.row(twin)[:2] == (None, "unpaired")
    assert place.sessions() == [newest]


def seed_postgres_again(dsn: str, number: str, index: int) -> list[str]:
    """Another session of a number; the row for the number itself is there once only."""
    Producer(dsn).execute("DELETE FROM whatsmeow_lid_map")
    return seed_postgres(dsn, [number], index=index)


async def test_what_is_in_the_way_at_shardd_is_told(shardd: Command, producer: Producer, old_mysql: OldMysql) -> None:
    producer.execute("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", WABLAS)
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, removed_at) VALUES (%s, 'whacenter', now())", WHACENTER
    )
    producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+62 812-3400-0003')")
    producer.execute("INSERT INTO shardd.campaigns (id, state) VALUES ('legacy-9', 'cancelled')")
    old_mysql.add(
        "user_devices",
        [
            device(WABLAS, "Shop", platform="Wablas", jid="t"),
            device(WHACENTER, "Branch", platform="Whacenter", jid="w"),
            device(UNPAIRED, "Phone"),
            device("bad id", "Spaces"),
        ],
    )
    old_mysql.add(
        "broadcast_messages",
        [message(1), message(2, WHACENTER), message(3, UNPAIRED), message(4, UNPAIRED, campaign_id=9)],
    )
    ran = await shardd("import", "legacy", "--from", old_mysql.dsn, "--yes", "--json")
    assert ran.code == 65
    assert of(ran.json, "reason") == {
        "its id belongs to another device": [WABLAS],
        "the device was removed from shardd; bring it back: shardd device add": [WHACENTER],
        "id cannot be a device id, even with the prefix legacy-: at most 64 of A-Z a-z 0-9 . _ : + @ -": ["bad id"],
        "its device is not imported": ids(1, 2),
        "the queue refuses its campaign": ids(4),
    }
    assert (ran.json["messages"]["new"], ran.json["messages"]["opted_out"]) == (1, 1)
    assert producer.states() == {"opted_out": 1}


async def test_an_import_that_was_killed_is_done_again(
    shardd: Command, producer: Producer, old_mysql: OldMysql
) -> None:
    old_mysql.add("user_devices", [device(WABLAS, "Shop", platform="Wablas", jid="token")])
    old_mysql.execute(
        "INSERT INTO broadcast_messages (id, device_id, recipient_phone, content, status) "
        f"SELECT seq, '{WABLAS}', concat('6281234', seq + 100000), 'x', 'pending' FROM seq_1_to_20000"
    )
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "import", "legacy", "--from", old_mysql.dsn, "--yes", "--json"),
        env=shardd.environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    while counts(producer)[1] == 0:
        assert process.returncode is None
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    before = counts(producer)[1]
    assert 0 < before < 20_000
    ran = await shardd("import", "legacy", "--from", old_mysql.dsn, "--yes", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["messages"]["new"], ran.json["messages"]["existing"]) == (20_000 - before, before)
    assert producer.execute("SELECT count(*), count(DISTINCT reference) FROM shardd.jobs") == [(20_000, 20_000)]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("--timezone", "Mars/Base"),
            "--timezone: Mars/Base is not a known time zone",
        ),
        (("--expire-after", "soon"), "--expire-after: soon is "),
        (("--expire-after", "0"), "--expire-after: 0 is too small; write a value from 1ms"),
        (
            ("--sessions", "sqlite:///old.db"),
            "--sessions: the value (not shown) begins with sqlite://, which is not PostgreSQL's",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_what_cannot_be_meant_is_told_in_one_line(
    shardd: Command, arguments: tuple[str, ...], error: str
) -> None:
    ran = await shardd("import", "legacy", "--from", "old.sql", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (64, "", 1)
    assert error in ran.err


async def test_a_system_without_its_tables_is_told(
    shardd: Command, old_postgresql: OldPostgresql, empty_dsn: str
) -> None:
    empty = await shardd("import", "legacy", "--from", empty_dsn, "--dry-run")
    assert (empty.code, empty.out) == (65, "")
    assert "has no table user_devices: is it the old system's?" in empty.err
    old_postgresql.execute("DROP TABLE broadcast_messages")
    half = await shardd("import", "legacy", "--from", old_postgresql.dsn, "--dry-run", "--json")
    assert "has no table broadcast_messages" in half.err
    old_postgresql.execute(
        "CREATE TABLE broadcast_messages (id int, device_id int, recipient_phone int, content int, status int)"
    )
    no_store = await shardd("import", "legacy", "--from", old_postgresql.dsn, "--sessions", empty_dsn, "--dry-run")
    assert (no_store.code, no_store.out) == (65, "")
    assert "has no table whatsmeow_device: name the database of the old sessions with --sessions" in no_store.err
