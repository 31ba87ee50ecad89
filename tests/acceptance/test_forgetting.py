"""Forgetting a person while the daemon runs: nothing of them stays, nothing is sent, and only they end it."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.command import Command

WORDS = {"take_back_words": "start", "take_back_confirm": "Welcome back."}


async def test_a_forgotten_person_gets_nothing_until_they_write_start(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon(opt_outs={**WORDS, "exempt": "service"})
    shardd = Command(daemon.config_file)
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "a secret", person), "sent")
    fleet.server.control.write(phone.name, person, "I am Adelheid")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.messages WHERE text = 'I am Adelheid'"))
    (row,) = fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) VALUES (%s, %s, %s, now() + interval '1 day') RETURNING id",
        *(phone.id, f"+{person}", "another secret"),
    )

    done = (await shardd("opt-out", "forget", f"+{person}", "--yes", "--json")).json
    assert person in done["addresses"]
    assert (done["ended"], done["jobs"], done["messages"], done["in_flight"]) == (1, 2, 1, 0)
    tables = (
        "jobs",
        "archive",
        "messages",
        "outbox",
        "opt_outs",
        "opt_out_log",
        "same_person",
        "contacts",
        "dedupe_keys",
    )
    pattern = f"{person}|secret|Adelheid"
    found = [table for table in tables if fleet.rows(f"SELECT 1 FROM shardd.{table} t WHERE t::text ~ %s", pattern)]
    assert found == []
    assert fleet.job(row["id"])["state"] == "opted_out"
    assert "forgotten" in (await shardd("opt-out", "show", f"+{person}")).out
    assert {row["source"] for row in (await shardd("opt-out", "list", "--json")).json} == {"forgotten"}

    insert = (
        "INSERT INTO shardd.jobs (device_id, recipient, body, class, reference, dedupe_key) "
        "VALUES (%s, %s, %s, %s, 'patient-77', %s) RETURNING id"
    )
    (row,) = fleet.rows(insert, phone.id, f"+{person}", "a third secret", "marketing", f"key of {person}")
    late = int(row["id"])
    assert (fleet.job(late)["state"], fleet.job(late)["recipient"]) == ("opted_out", "forgotten")
    # The program finds its job by a key that does not have the number in it.
    assert fleet.job(late)["reference"] == "patient-77"
    assert not fleet.rows("SELECT 1 FROM shardd.archive a WHERE a::text ~ %s", person)
    # What is exempt is sent, which the command said, and erased by the next one.
    assert done["still_sent"] == ["service"]
    (row,) = fleet.rows(insert, phone.id, f"+{person}", "your code is 77", "service", None)
    await fleet.job_is(row["id"], "sent")
    again = await shardd("opt-out", "forget", f"+{person}", "--yes")
    assert "still sent: jobs of class service (opt_outs.exempt), which are stored with their number" in again.out
    assert not fleet.rows("SELECT 1 FROM shardd.archive a WHERE a::text ~ %s", f"{person}|your code")
    fleet.server.control.write(phone.name, person, "start")
    await fleet.until(lambda: fleet.seen("Welcome back."))
    await fleet.job_is(fleet.send(phone, "welcome", person), "sent")
    assert await daemon.stop() == 0
    assert not [
        message
        for message in fleet.server.control.messages()
        if "secret" in message.text and message.text != "a secret"
    ]


async def test_other_forms_of_the_number_quotes_in_groups_and_states_of_devices_go_too(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person, new = fleet.stranger(), fleet.stranger()
    dialled, listed = "525512345678", "5215512345678"
    group = fleet.server.control.create_group("friends", [phone.number, person])
    daemon = fleet.daemon(inbox={"include": ["groups"]})
    shardd = Command(daemon.config_file)
    await daemon.start()
    inserted = (
        "INSERT INTO shardd.jobs (device_id, recipient, body, reference, dedupe_key) "
        "VALUES (%s, %s, 'hi', %s, %s) RETURNING id"
    )
    (row,) = fleet.rows(inserted, phone.id, f"+{listed}", f"customer {listed}", "order of 55-1234-5678")
    await fleet.job_is(row["id"], "sent")
    inbox = daemon.state_dir / "inbox"
    inbox.mkdir(mode=0o700, exist_ok=True)
    (inbox / "00-1-1.damaged").write_text(f"half of a message of +{listed}")
    fleet.server.control.write(phone.name, person, "I live in Elm street", group=group)
    (message,) = await fleet.until(lambda: fleet.rows("SELECT id FROM shardd.messages"))
    reply = "INSERT INTO shardd.jobs (reply_to, body) VALUES (%s, %s) RETURNING id"
    (sent,) = fleet.rows(reply, message["id"], "to all")
    await fleet.job_is(sent["id"], "sent")
    await shardd("device", "pause", phone.id)
    (waits,) = fleet.rows(reply, message["id"], "to all later")

    async def forget(*numbers: str) -> dict[str, Any]:
        done: dict[str, Any] = (await shardd("opt-out", "forget", *numbers, "--yes", "--json")).json
        tables = ("jobs", "archive", "messages", "outbox", "devices", "dedupe_keys", "same_person")
        pattern = "|".join([*done["spellings"], "55-1234", "Elm street"])
        found = [table for table in tables if fleet.rows(f"SELECT 1 FROM shardd.{table} t WHERE t::text ~ %s", pattern)]
        assert found == []
        return done

    done = await forget(f"+{person}", f"+{dialled}")
    assert {person, dialled, listed} <= set(done["spellings"])
    assert (done["quotes"], done["jobs"], done["files"], done["in_flight"]) == (2, 1, 1, 0)
    (late,) = fleet.rows(inserted, phone.id, f"+{dialled}", f"customer {listed}", f"again {listed}")
    assert (fleet.job(late["id"])["state"], fleet.job(late["id"])["reference"]) == ("opted_out", None)
    # What waits for the group is sent, without the quote.
    await shardd("device", "resume", phone.id)
    await fleet.job_is(waits["id"], "sent")
    (first,), (second,) = fleet.seen("to all"), fleet.seen("to all later")
    assert (first.quoted_id != "", second.quoted_id) == (True, "")

    fleet.server.control.restrict(phone.number, 3600)
    refused = fleet.send(phone, "to somebody new", new)
    await fleet.device_is(phone, "restricted")
    assert new not in str(fleet.rows("SELECT d::text FROM shardd.devices d"))
    assert new not in str(fleet.rows("SELECT detail FROM shardd.outbox WHERE kind = 'device.state'"))
    await forget(f"+{new}")
    assert fleet.job(refused)["recipient"] == "forgotten"
    assert await daemon.stop() == 0


async def test_what_is_left_of_an_interrupted_erasure_is_said_and_erased_later(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    shardd = Command(daemon.config_file)
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "a secret", person), "sent")
    inbox = daemon.state_dir / "inbox"
    inbox.mkdir(mode=0o700, exist_ok=True)
    (inbox / "00-1-1.damaged").write_text(f"half of a message of +{person}")
    (inbox / "00-1-2.damaged").write_text("half of a message of +6281")
    (daemon.state_dir / "receipts.spool").write_text(f"a receipt of +{person}")
    fleet.rows(
        "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl, host, state_dir) "
        "VALUES ('another', 'berlin', gen_random_uuid(), 2, '0', 9, 'host-b', '/srv/shardd')"
    )

    with psycopg.connect(fleet.dsn) as other:
        other.execute("SELECT 1 FROM shardd.archive FOR UPDATE")
        failed = await shardd("opt-out", "forget", f"+{person}", "--yes")
    assert failed.code == 75
    assert "Not erased yet: finished jobs, the list and the map of addresses." in failed.err
    assert "not all is erased yet" in (await shardd("opt-out", "show", f"+{person}")).out
    late = fleet.send(phone, "a third secret", person)
    assert fleet.job(late)["state"] == "opted_out"
    fleet.rows("UPDATE shardd.forgetting SET touched_at = now() - interval '1 hour'")
    await daemon.until(lambda status: "are not erased yet" in " ".join(status["problems"]))

    done = (await shardd("opt-out", "forget", "--yes", "--json")).json
    assert (done["jobs"], done["files"]) == (1, 1)
    assert done["waiting"] == [str(daemon.state_dir / "receipts.spool")]
    assert done["not_reached"] == [{"name": "berlin", "host": "host-b", "state_dir": "/srv/shardd"}]
    assert fleet.rows("SELECT 1 FROM shardd.archive a WHERE a::text LIKE %s", f"%{person}%") == []
    assert "nothing else is kept" in (await shardd("opt-out", "show", f"+{person}")).out
    nobody = await shardd("opt-out", "forget", "--yes")
    assert (nobody.code, "nobody is named" in nobody.err) == (64, True)
    await daemon.until(lambda status: "are not erased yet" not in " ".join(status["problems"]))
    assert await daemon.stop() == 0


async def test_what_cannot_be_forgotten_is_said(fleet: Fleet) -> None:
    daemon = fleet.daemon()
    await daemon.start()
    shardd = Command(daemon.config_file)
    group = await shardd("opt-out", "forget", "120363041234567890@g.us", "--yes")
    assert (group.code, "a group is not a person" in group.err) == (64, True)
    assert await daemon.stop() == 0
