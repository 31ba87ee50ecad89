"""A small fleet in which half of the devices never send, with every interval scaled by one factor.

WhatsApp unlinks a linked device that it deems inactive for about two weeks, as operators of fleets report; here the server
unlinks one that showed no presence for four intervals. `scripts/bench visits` does the same with 3000 devices and two weeks.
"""

from __future__ import annotations

import json

import pytest

from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.command import Command

HOUR = 2.0
"""Seconds of an hour of this test."""
VISIT_EVERY = 6 * HOUR
NOTES = "SELECT visit_note FROM shardd.device_visits WHERE device_id = %s AND visit_note IS NOT NULL"


@pytest.mark.timeout(300)
async def test_devices_that_never_send_are_visited_and_keep_their_links(fleet: Fleet) -> None:
    senders, idle = fleet.add(4), fleet.add(4)
    nameless, removed = fleet.add(2)
    fleet.rows(
        "UPDATE shardd_sessions.whatsmeow_device SET push_name = '' WHERE jid = %s", f"{nameless.name}@s.whatsapp.net"
    )
    await fleet.control.settings(unlink_after=4 * VISIT_EVERY)
    daemon = fleet.daemon(
        shards=2, transports={"whatsapp": {"visit_every": f"{VISIT_EVERY:g}s", "idle_close": "1s", "probe_after": "1s"}}
    )
    await daemon.start()
    command = Command(daemon.config_file)

    # Each is visited soon after it was paired. From then on nothing but visits opens half of them.
    await fleet.until(lambda: all(_presences(fleet, phone) for phone in (*senders, *idle)))
    person = fleet.stranger()
    await fleet.control.write(idle[0].name, person, "STOP")
    await fleet.until(lambda: _logins(fleet, removed))
    await fleet.control.remove_device(removed.name)

    # What was sent to a device without work is heard: an opt-out, the end of its link.
    await fleet.until(lambda: fleet.rows("SELECT 1 AS listed FROM shardd.opt_outs WHERE address = %s", person))
    assert "401" in (await fleet.device_is(removed, "logged_out"))["reason"]

    # The library shows no presence without a name.
    await fleet.until(lambda: fleet.rows(NOTES, nameless.id))
    shown = " ".join((await command("device", "show", nameless.id)).out.split())
    assert "last online" in shown
    assert "no presence was shown, because this session does not have the account's name" in shown
    assert _presences(fleet, nameless) == 0

    sent = 0
    while (least := min(_presences(fleet, phone) for phone in (*senders, *idle))) < 6:
        sent += fleet.send_many(senders, 1, to=fleet.stranger())
        assert (await fleet.finished(sent))["sent"] == sent
        await fleet.until(lambda least=least: min(_presences(fleet, phone) for phone in (*senders, *idle)) > least)
    assert {event.device for event in fleet.server.control.events("unlinked")} <= {nameless.name}
    plain = json.loads((await command("device", "show", idle[0].id, "--json")).out)
    assert plain["online_at"] < plain["next_visit_at"]
    assert plain["presence_at"]
    assert plain["visit_note"] is None
    gone = await command("device", "show", removed.id)
    assert "none while it is logged_out" in gone.out


def _presences(fleet: Fleet, phone: Phone) -> int:
    seen = fleet.server.control.activity().get(phone.name)
    return 0 if seen is None else seen.presences


def _logins(fleet: Fleet, phone: Phone) -> int:
    return len(fleet.logins(phone))
