"""Rows that no gate would take, as an earlier version may have left them: each costs itself, and nobody else anything.

They are written past the triggers. Beside each stands a good one that must be sent.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

HUGE = "1" + "0" * 4400
ENDED = {
    # what is in the row, and the words with which it ends as failed, of class content
    "an array": ({"kind": "location", "details": "[]"}, "details is a JSON array, not an object"),
    "a text": ({"kind": "contact", "details": '"note"'}, "details is a JSON string, not an object"),
    "a number of 4400 digits": (
        {"kind": "location", "details": '{"latitude": 52, "longitude": 13, "x": 1e4400}'},
        "details has the number 1000000000000000000000000000000000000000…, which is out of range",
    ),
    "a number of 70 bits": (
        {"kind": "location", "details": '{"latitude": 52, "longitude": 13, "x": 1180591620717411303424}'},
        "details has the number 1180591620717411303424, which is out of range",
    ),
    "a deep nesting": (
        {"kind": "template", "details": '{"a": ' + "[" * 3000 + "]" * 3000 + "}"},
        "details is nested in more than 32 levels",
    ),
    "long details": ({"kind": "location", "details": '{"a": "' + "x" * 9000 + '"}'}, "details is too long"),
    "very long details": (
        {"kind": "location", "details": '{"a": "' + secrets.token_hex(100_000) + '"}'},
        "details is too long",
    ),
    "a body beyond every frame": ({"body": "x" * 70_000_000}, "body is too long"),
    "long media": ({"kind": "image", "media": "x" * 2_000_000}, "media is too long"),
    "a long name": ({"kind": "image", "media": "https://x/y", "file_name": "x" * 300}, "file_name is too long"),
}
SENT: dict[str, dict[str, Any]] = {
    "a long recipient, whose address is what is written to": {"recipient": "+" + "1" * 1_000_000},
    "metadata with a number of 4400 digits": {"metadata": '{"n": 1e4400}'},
    "metadata that is an array": {"metadata": "[]"},
    "metadata that is deep": {"metadata": '{"a": ' + "[" * 3000 + "]" * 3000 + "}"},
    "variables that are a number": {"variables": "1e4400"},
    "an unknown class": {"class": "otp"},
    "another policy": {"on_doubt": "never", "priority": 30_000, "max_attempts": 0},
    "no end": {"expires_at": "infinity"},
    "a moment beyond every calendar": {"created_at": "infinity"},
    "an early moment": {"created_at": "4000-01-01 BC"},
}
DEVICES: dict[str, dict[str, Any]] = {
    "settings-number": {"settings": '{"order": 1e4400}'},
    "settings-array": {"settings": "[]"},
    "settings-bits": {"settings": '{"order": 99999999999999999999}'},
    "classes-array": {"classes": "[]"},
    "classes-hours": {"classes": '{"reply": {"quiet_hours": "9-5"}}'},
    "classes-text": {"classes": '{"reply": {"gap_min": "5s"}}'},
}


def past_the_gate(superuser_dsn: str, table: str, rows: list[dict[str, Any]]) -> list[Any]:
    with psycopg.connect(superuser_dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        found = []
        for row in rows:
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING id").format(
                sql.Identifier("shardd", table),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
            )
            found += [row[0] for row in connection.execute(statement, list(row.values()))]
        return found


def job(device: str, **fields: Any) -> dict[str, Any]:
    return {"device_id": device, "recipient": "+4915112345678", "address": "4915112345678", "body": "bad", **fields}


async def test_each_ends_alone_and_its_neighbours_are_sent(
    make_daemon: Callable[..., Daemon], producer: Producer, superuser_dsn: str
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    strange = [*(fields for fields, _ in ENDED.values()), *SENT.values()]
    devices = producer.add_devices(len(strange))
    bad: list[int] = []
    good: list[int] = []
    for device, fields in zip(devices, strange, strict=True):
        # One waits before it on its device, and one behind.
        for _ in range(2):
            good += [row[0] for row in producer.execute(
                "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, '+4915112345678', 'good') RETURNING id", device
            )]  # fmt: skip
            if len(good) % 2:
                bad += past_the_gate(superuser_dsn, "jobs", [job(device, **fields)])

    await daemon.start()
    pids = {shard["pid"] for shard in (await daemon.status())["shards"]}
    await producer.until_finished(daemon, len(good) + len(bad))
    status = await daemon.status()
    assert {shard["pid"] for shard in status["shards"]} == pids
    assert (status["healthy"], sum(shard["restarts"] for shard in status["shards"])) == (True, 0), status["problems"]

    rows = producer.execute("SELECT id, state, error_class, error FROM shardd.outcomes WHERE id = ANY (%s)", bad)
    found = {number: rest for number, *rest in rows}
    for number, (name, (_, words)) in zip(bad, ENDED.items(), strict=False):
        state, error_class, error = found[number]
        assert (name, state, error_class) == (name, "failed", "content")
        assert words in error
        assert len(error) < 200
    for number, name in zip(bad[len(ENDED) :], SENT, strict=True):
        assert (name, found[number][0]) == (name, "sent")
    assert set(producer.execute("SELECT state FROM shardd.outcomes WHERE id = ANY (%s)", good)) == {("sent",)}
    assert sorted(m["job"] for m in daemon.messages()) == sorted([*good, *bad[len(ENDED) :]])

    # Every list shows all of them.
    listed = (await shardd("job", "list", "--limit", "1000", "--json")).json
    assert {one["id"] for one in listed} == {*bad, *good}
    assert (await shardd("job", "list", "--limit", "1000")).code == 0
    events = (await shardd("event", "list", "--limit", "1000", "--json")).json
    assert {event["job_id"] for event in events if event["job_id"]} == {*bad, *good}
    assert (await shardd("event", "list", "--limit", "1000")).code == 0
    numbers = dict(zip([*ENDED, *SENT], bad, strict=True))
    for name in (
        "a number of 4400 digits",
        "a deep nesting",
        "metadata that is deep",
        "variables that are a number",
        "an early moment",
    ):
        assert (await shardd("job", "show", numbers[name], "--json")).json["id"] == numbers[name]
    assert (await shardd("job", "show", numbers["metadata that is deep"])).code == 0
    assert (await shardd("job", "show", numbers["a moment beyond every calendar"])).code == 0
    metadata = {one["id"]: one["metadata"] for one in listed}
    assert metadata[numbers["metadata with a number of 4400 digits"]] == {"n": HUGE}
    assert metadata[numbers["metadata that is an array"]] == []
    assert metadata[numbers["metadata that is deep"]]["unreadable"].startswith('{"a": [[[')


async def test_an_operator_may_cancel_them(shardd: Command, producer: Producer, superuser_dsn: str) -> None:
    """The claim of one failed again and again, and left it with a worker that had never heard of it."""
    (device,) = producer.add_devices(1)
    rows = past_the_gate(superuser_dsn, "jobs", [job(device, **fields) for fields, _ in ENDED.values()])
    ran = await shardd("job", "cancel", *rows, "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert producer.states() == {"cancelled": len(rows)}


async def test_a_device_that_cannot_be_read_cannot_send_and_says_so(
    make_daemon: Callable[..., Daemon], producer: Producer, superuser_dsn: str
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    producer.add_devices(2)
    past_the_gate(
        superuser_dsn, "devices", [{"id": name, "transport": "sandbox", **fields} for name, fields in DEVICES.items()]
    )
    past_the_gate(superuser_dsn, "devices", [{"id": "odd", "transport": "sandbox", "state_until": "infinity"}])
    with psycopg.connect(superuser_dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.device_days (device_id, day, last_at) VALUES ('odd', 'infinity', 'infinity')"
        )
    waiting = past_the_gate(superuser_dsn, "jobs", [job(name) for name in DEVICES])
    producer.add_jobs(4, 2)
    past_the_gate(superuser_dsn, "jobs", [job("odd")])
    await daemon.start()
    await producer.until_finished(daemon, 5)
    assert producer.states() == {"sent": 5, "queued": len(DEVICES)}

    status = await daemon.status()
    (problem,) = status["problems"]
    assert problem.startswith(
        f"{len(DEVICES)} devices have rows with which it cannot send; classes-array: its classes cannot be read"
    )
    assert status["problem_kinds"]["device"] == 1
    assert (status["totals"]["ready"], status["totals"]["parked"]) == (3, len(DEVICES))
    shown = {one["id"]: one for one in (await shardd("device", "list", "--json")).json}
    for name in DEVICES:
        column = name.partition("-")[0]
        assert f"its {column} cannot be read: {column} " in shown[name]["to_do"]
        assert f"shardd device set {name} --" in shown[name]["to_do"]
    assert (await shardd("device", "show", "classes-hours", "--json")).json["held"] == shown["classes-hours"]["fault"]
    words = " ".join((await shardd("device", "show", "settings-number")).out.split())
    assert "may send not now: its settings cannot be read" in words
    assert {name: one["fault"] is None for name, one in shown.items()} == {
        **dict.fromkeys(DEVICES, False), "d1": True, "d2": True, "odd": True,
    }  # fmt: skip
    assert "its settings cannot be read" in (await shardd("device", "list")).out
    waits = dict(producer.execute("SELECT device_id, waits_for FROM shardd.outcomes WHERE id = ANY (%s)", waiting))
    assert waits["settings-number"] == "its device: its settings cannot be read"

    # What is said to be done helps.
    for name in DEVICES:
        command = shown[name]["to_do"].partition("; write them anew: shardd ")[2].replace(" JSON", " {}").split()
        assert (await shardd(*command)).code == 0
    await producer.until_finished(daemon, 5 + len(DEVICES))
    assert producer.states() == {"sent": 5 + len(DEVICES)}
    await daemon.until(lambda status: status["healthy"])
    assert json.loads((await shardd("status", "--json")).out)["problems"] == []
