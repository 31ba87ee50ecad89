"""Opt-outs that people take back, with daemons running: what they said last counts, on every device, worker and node."""

from __future__ import annotations

import time

from shardd.hashing import shard_of
from tests.fixtures.whatsapp_fleet import Fleet, Phone

WORDS = {"take_back_words": "start, mulai", "confirm": "Bye.", "take_back_confirm": "Welcome back."}


def on_two_shards(fleet: Fleet) -> tuple[Phone, Phone]:
    """Two devices that two workers serve."""
    phones = fleet.add(12)
    first = phones[0]
    return first, next(phone for phone in phones if shard_of(phone.id, 2) != shard_of(first.id, 2))


async def next_second(fleet: Fleet) -> None:
    """WhatsApp's times are in seconds, and of one second an opt-out counts."""
    begun = int(time.time())
    await fleet.until(lambda: int(time.time()) > begun)


def bodies(fleet: Fleet) -> list[str]:
    return [message.text for message in fleet.server.control.messages()]


async def test_start_takes_a_stop_back_on_every_worker_and_a_later_stop_counts_again(fleet: Fleet) -> None:
    person = fleet.stranger()
    daemon = fleet.daemon(shards=2, opt_outs=WORDS)
    first, second = on_two_shards(fleet)
    await daemon.start()
    for phone in (first, second):
        await fleet.job_is(fleet.send(phone, f"hello from {phone.id}", person), "sent")

    # Both workers remember it.
    fleet.server.control.write(first.name, person, "stop")
    fleet.server.control.write(second.name, person, "stop")
    await fleet.until(lambda: daemon.log_tail(200).count("a recipient opted out") == 2)
    await fleet.job_is(fleet.send(first, "while opted out", person), "opted_out")
    assert (await fleet.until(lambda: fleet.seen("Bye.")))[0].recipient == person

    await next_second(fleet)
    # A question is none, and nor is another word.
    fleet.server.control.write(second.name, person, "start?")
    fleet.server.control.write(second.name, person, "please start")
    await fleet.until(lambda: fleet.seen("Welcome back."))
    for phone in (first, second):
        await fleet.job_is(fleet.send(phone, f"again from {phone.id}", person), "sent")
    log = fleet.rows("SELECT DISTINCT kind, device_id, words FROM shardd.opt_out_log ORDER BY kind")
    assert ("taken_back", second.id, "please start") in [tuple(row.values()) for row in log]
    (event,) = fleet.rows("SELECT device_id, data FROM shardd.all_events WHERE kind = 'opt_out.taken_back'")
    assert (event["device_id"], event["data"]["recipient"]) == (second.id, f"+{person}")

    await next_second(fleet)
    fleet.server.control.write(first.name, person, "Stop!")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", person))
    await fleet.job_is(fleet.send(second, "after the second stop", person), "opted_out")
    await fleet.until(lambda: len(fleet.seen("Bye.")) == 2)
    assert await daemon.stop() == 0
    sent = [text for text in bodies(fleet) if "opted out" in text or "second stop" in text]
    assert sent == []


async def test_a_start_that_is_heard_late_takes_nothing_back(fleet: Fleet) -> None:
    """It waits at a device that is offline, while the person opts out at another one."""
    first, second = fleet.add(2)
    person = fleet.stranger()
    daemon = fleet.daemon(opt_outs=WORDS, transports={"whatsapp": {"idle_close": "1s", "probe_after": "1s"}})
    await daemon.start()
    await fleet.job_is(fleet.send(first, "one", person), "sent")
    await fleet.job_is(fleet.send(second, "two", person), "sent")
    await fleet.asleep(daemon)
    fleet.server.control.write(second.name, person, "start")
    await next_second(fleet)
    fleet.server.control.write(first.name, person, "stop")
    fleet.send(first, "wakes the first", fleet.stranger())
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", person))
    fleet.send(second, "wakes the second")
    heard = "SELECT 1 FROM shardd.inbox WHERE device_id = %s AND text = 'start'"
    await fleet.until(lambda: fleet.rows(heard, second.id))
    await fleet.job_is(fleet.send(second, "three", person), "opted_out")
    assert await daemon.stop() == 0
    assert "three" not in bodies(fleet)


async def test_without_words_in_the_config_nothing_takes_an_opt_out_back(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon()
    await daemon.start()
    await fleet.job_is(fleet.send(phone, "one", person), "sent")
    fleet.server.control.write(phone.name, person, "stop")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", person))
    await next_second(fleet)
    fleet.server.control.write(phone.name, person, "start")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.inbox WHERE text = 'start'"))
    await fleet.job_is(fleet.send(phone, "two", person), "opted_out")
    assert await daemon.stop() == 0


async def test_a_node_forgets_what_it_heard_when_the_person_tells_another_node(fleet: Fleet) -> None:
    person = fleet.stranger()
    here, there = (fleet.daemon(node=name, shards=2, opt_outs=WORDS) for name in ("here", "there"))
    for place, daemon in enumerate((here, there)):
        daemon.take_place(place)
    first, second = on_two_shards(fleet)
    await here.start()
    await there.start()

    nodes = "SELECT DISTINCT node_id FROM shardd.leases WHERE expires_at > now()"
    await fleet.until(lambda: len(fleet.rows(nodes)) == 2)
    for phone in (first, second):
        await fleet.job_is(fleet.send(phone, f"hello from {phone.id}", person), "sent")
    fleet.server.control.write(first.name, person, "stop")
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", person))
    await next_second(fleet)
    fleet.server.control.write(second.name, person, "start")
    await fleet.until(lambda: not fleet.rows("SELECT 1 FROM shardd.opt_outs"))
    await fleet.job_is(fleet.send(first, "again", person), "sent")
    assert await here.stop() == 0
    assert await there.stop() == 0
