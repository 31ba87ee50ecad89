"""`shardd device logout`, `take-over`, `import` and `replace`, with the real library and a running daemon."""

from __future__ import annotations

import pytest

from shardd.incoming_spool import IncomingSpool
from shardd.states import DEVICE_REMEDY, DeviceState
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.acceptance.test_platforms import until
from tests.fixtures.pairing import Place
from tests.support.command import Command
from tests.support.daemon import Producer
from tests.whatsapp_server.seed import seed_postgres


async def test_a_logout_unlinks_the_session_that_a_worker_has_open_and_keeps_the_jobs(
    place: Place, fresh_number: str
) -> None:
    await place.daemon.start()
    session = await place.add_paired("shop", fresh_number)
    place.send("shop", "before")
    await place.producer.until_finished(place.daemon, 1)
    asked = await place.shardd("device", "logout", "shop")
    assert (asked.code, asked.out) == (64, "")
    assert f"add --yes (End the session of +{fresh_number} on device shop?)" in asked.err
    done = await place.shardd("device", "logout", "shop", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"device shop is logged out of +{fresh_number}; pair it again: shardd device pair shop\n"
    assert place.producer.acts() == [("log out", "device shop", "begun"), ("log out", "device shop", "done")]
    await place.control.wait_events("logout", device=fresh_number)
    assert session not in place.sessions()
    place.send("shop", "after")
    assert place.row("shop") == (None, "unpaired", "logged out by an operator")
    assert place.producer.states() == {"sent": 1, "queued": 1}
    again = await place.shardd("device", "logout", "shop", "--yes")
    assert (again.code, again.err) == (64, "shardd: device shop has no session: there is nothing to log out\n")


async def test_a_logout_keeps_what_waited_for_the_device(place: Place, fresh_number: str) -> None:
    """WhatsApp gives the backlog to the login that ends the session, and to no other."""
    await place.daemon.start()
    await place.add_paired("shop", fresh_number)
    place.send("shop", "before")
    await place.producer.until_finished(place.daemon, 1)
    assert await place.daemon.stop() == 0
    for text in ("yes please", "STOP"):
        await place.control.write(f"{fresh_number}:1", "6281234567890", text)
    done = await place.shardd("device", "logout", "shop", "--yes")
    assert (done.code, done.err) == (0, "")
    spool = IncomingSpool(place.daemon.state_dir)
    assert len(spool.names()) == 2
    await place.daemon.start()
    await until(place.daemon, lambda: not spool.names())
    heard = place.producer.execute("SELECT text, opt_out FROM shardd.inbox ORDER BY id")
    assert heard == [("yes please", False), ("STOP", True)]
    assert place.producer.execute("SELECT address FROM shardd.opt_outs WHERE address = '6281234567890'")


async def test_a_session_that_cannot_be_unlinked_stays_unless_it_is_to_be_forgotten(
    place: Place, fresh_number: str
) -> None:
    session = await place.add_paired("shop", fresh_number, proxy="http://127.0.0.1:1")
    failed = await place.shardd("device", "logout", "shop", "--yes")
    assert (failed.code, failed.out) == (70, "")
    assert f"session {session} could not be logged out: " in failed.err
    assert failed.err.endswith("; or forget it here only: --forget\n")
    assert (place.row("shop"), place.sessions()) == ((session, "ready", None), [session])
    forgotten = await place.shardd("device", "logout", "shop", "--yes", "--forget")
    assert (forgotten.code, forgotten.err) == (0, "")
    assert forgotten.out.startswith(f"device shop has forgotten +{fresh_number}; remove it on the phone too")
    assert place.row("shop")[:2] == (None, "unpaired")
    assert place.sessions() == []


async def test_a_replaced_device_sends_again_after_a_person_took_it_over(place: Place, fresh_number: str) -> None:
    await place.daemon.start()
    await place.add_paired("shop", fresh_number)
    early = await place.shardd("device", "take-over", "shop", "--yes")
    assert (early.code, early.err) == (64, "shardd: device shop is not replaced but ready: nothing to do\n")
    place.send("shop", "before")
    await place.producer.until_finished(place.daemon, 1)
    await place.control.replace(f"{fresh_number}:1")
    while place.row("shop")[1] != "replaced":
        await place.daemon.wait_change()
    place.send("shop", "after")
    shown = await place.shardd("device", "show", "shop")
    assert "stop that client, then: shardd device take-over shop" in " ".join(shown.out.split())
    done = await place.shardd("device", "take-over", "shop", "--yes")
    assert (done.code, done.out.partition(";")[0]) == (0, "device shop is ready")
    assert place.producer.acts() == [("take over", "device shop", "done")]
    assert await place.producer.until_finished(place.daemon, 2) == {"sent": 2}
    seen = await place.control.wait_messages(2, sender=fresh_number)
    assert [message.text for message in seen] == ["before", "after"]


async def test_imported_sessions_send_without_any_pairing(place: Place, empty_dsn: str, fresh_number: str) -> None:
    await place.daemon.start()
    numbers = [str(int(fresh_number) + 600_000 + n) for n in range(4)]
    new, waiting, taken, used = numbers
    await prepare_store(empty_dsn)
    seed_postgres(empty_dsn, [new], index=2)
    Producer(empty_dsn).execute("DELETE FROM whatsmeow_lid_map")  # has one row for a number, not for a session
    seed_postgres(empty_dsn, numbers)
    place.add(f"wa-{waiting}")
    place.add(f"wa-{taken}", transport="sandbox", state="ready")
    await place.add_paired("other", used, index=3)
    command = ("device", "import", "--from", empty_dsn, "--prefix", "wa-", "--gap", "0s..1s")

    report = await place.shardd(*command, "--json")
    assert (report.code, report.err.partition(".")[0]) == (0, "nothing was changed")
    assert "Then repeat this with --apply." in report.err
    assert [(item["session"].partition("@")[0], item["device"], item["does"], item["why"]) for item in report.json] == [
        (f"{new}:2", f"wa-{new}", "import", "new device"),
        (f"{new}:1", f"wa-{new}", "skip", "an older session of this number"),
        (f"{waiting}:1", f"wa-{waiting}", "import", "the device is there and gets it"),
        (
            f"{taken}:1",
            f"wa-{taken}",
            "conflict",
            "the id is taken by a device of sandbox; choose another with --prefix",
        ),
        (f"{used}:1", f"wa-{used}", "conflict", "device other has this number, with another session"),
    ]
    table = await place.shardd(*command, new, "999")
    assert "1 to import, 1 to skip" in table.out
    assert (table.code, "number 999: the other store has no session of it" in table.err) == (64, True)
    unsure = await place.shardd(*command, "--apply")
    assert (unsure.code, "replace each other forever" in unsure.err, "add --yes" in unsure.err) == (64, True, True)
    assert place.producer.execute("SELECT count(*) FROM shardd.devices") == [(3,)]

    done = await place.shardd(*command, "--apply", "--yes")
    assert (done.code, done.err.splitlines()[-1]) == (0, "imported 2 devices")
    assert place.producer.acts() == [("import", "2 devices", "begun"), ("import", "2 devices", "done")]
    shown = (await place.shardd("device", "show", f"wa-{new}", "--json")).json
    assert (shown["state"], shown["label"], shown["gap_max"]) == ("ready", f"Device {new}", 1.0)
    assert place.row(f"wa-{waiting}") == (f"{waiting}:1@s.whatsapp.net", "ready", None)
    for number in (new, waiting):
        place.send(f"wa-{number}", f"by {number}")
        (message,) = await place.control.wait_messages(1, sender=number)
        assert message.text == f"by {number}"
    again = (await place.shardd(*command, "--json")).json
    assert [item["does"] for item in again] == ["existing", "skip", "existing", "conflict", "conflict"]


async def test_an_import_from_nowhere_is_told_in_one_line(place: Place, empty_dsn: str) -> None:
    bad = await place.shardd("device", "import", "--from", "sqlite:///secret.db")
    assert (bad.code, bad.out, bad.err.count("\n")) == (64, "", 1)
    assert bad.err.startswith("shardd: --from: the value (not shown) begins with sqlite://, which is not PostgreSQL's")
    none = await place.shardd("device", "import", "--from", empty_dsn)
    assert (none.code, none.out, none.err.count("\n")) == (69, "", 1)
    assert none.err.startswith("shardd: the store to import from has no table whatsmeow_device: name the database")
    assert "db migrate" not in none.err


async def test_the_jobs_of_a_dead_number_move_to_another_device(shardd: Command, producer: Producer) -> None:
    producer.add_devices(3, transport="whatsapp")
    producer.add_devices(1, prefix="s")
    producer.add_jobs(5, 1)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) "
        "VALUES ('d1', '+4915112345', 'later', now() + interval '1 day')"
    )
    # One in flight, and one that waits until the old device may write to strangers again.
    producer.execute("UPDATE shardd.jobs SET claimed_epoch = 1, claimed_at = now() WHERE id = 1")
    producer.execute("UPDATE shardd.jobs SET scheduled = true, due_at = now() + interval '6 hours' WHERE id = 2")
    producer.execute("UPDATE shardd.devices SET state = 'unpaired' WHERE id = 'd2'")
    # One of a group, to which d2 does not belong.
    producer.execute("INSERT INTO shardd.device_groups (id) VALUES ('g')")
    producer.execute("INSERT INTO shardd.jobs (device_group, recipient, body) VALUES ('g', '+4915112345', 'shared')")
    producer.execute("UPDATE shardd.jobs SET device_id = 'd1' WHERE device_group = 'g'")
    # An answer to a message that was written to d1.
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, reply_to, quote) VALUES ('d1', '+4915112345', 'yes', 1, '{}')"
    )

    done = await shardd("device", "replace", "d1", "d2")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "moved 5 jobs from d1 to d2",
        "1 job of device groups went back to their groups",
        "1 answer to messages (reply_to) stays with d1, because only d1 can send it",
        "1 job in flight stays with d1; repeat this command if it comes back to the queue",
        "they wait: d2 is unpaired; pair it: shardd device pair d2",
    ]
    assert producer.execute("SELECT id, device_id, scheduled, due_at = run_at FROM shardd.jobs ORDER BY id") == [
        (1, "d1", False, None),
        (2, "d2", False, None),
        *((number, "d2", False, None) for number in (3, 4, 5)),
        (6, "d2", True, True),
        (7, None, False, None),
        (8, "d1", False, None),
    ]
    for arguments, error in (
        (("d1", "d1"), "d1 cannot replace itself: name two devices"),
        (("d1", "no"), "device no is unknown; the others: shardd device list"),
        (("d1", "s1"), "d1 sends by whatsapp and s1 by sandbox"),
    ):
        refused = await shardd("device", "replace", *arguments)
        assert (refused.code, refused.out) == (64, "")
        assert refused.err.startswith(f"shardd: {error}")


@pytest.mark.parametrize("state", list(DeviceState))
async def test_show_tells_for_each_state_what_to_do(shardd: Command, producer: Producer, state: DeviceState) -> None:
    producer.add_devices(1, transport="whatsapp")
    producer.execute("UPDATE shardd.devices SET state = %s", state)
    shown = await shardd("device", "show", "d1")
    assert DEVICE_REMEDY[state].format(id="d1") in " ".join(shown.out.split())
