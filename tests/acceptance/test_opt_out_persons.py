"""An opt-out holds for the person: in every spelling, for the number and for the LID, with the daemon running."""

from __future__ import annotations

import psycopg
import pytest

from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from tests.acceptance.test_opt_outs import queue
from tests.fixtures.whatsapp_fleet import Fleet
from tests.whatsapp_server.wire.nodes import lid_jid

SPELLINGS = {
    "+5491123456789": ("+54 11 15 2345 6789", "+54111523456789", "+54 9 11 2345-6789", "+541123456789"),
    "+5215512345678": ("+525512345678", "+52 1 55 1234 5678", "525512345678@c.us"),
    "+551187654321": ("+5511987654321", "+55 011 98765-4321"),
    "+6281234567890": ("081234567890@s.whatsapp.net", "0812 3456 7890", "+62 812\u00a03456\u20117890", "\u200e+6281234567890"),
    "8888888888@lid": ("8888888888:2@lid",),
}  # fmt: skip
NEVER = ("+999123456789", "123456", "00000000000", "+62 81")


async def test_an_opt_out_holds_for_the_person(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    known, hidden, stored, dialled, listed_number, proof = (fleet.stranger() for _ in range(6))
    # Longer than this test takes: every message is the first client's.
    regions = {"whatsapp": {"default_region": "ID", "idle_close": "10m"}}
    daemon = fleet.daemon(transports=regions)
    await daemon.start()
    control = fleet.server.control

    # Spellings, at the INSERT. What can never be a number is refused there.
    for opted_out, spellings in SPELLINGS.items():
        fleet.rows("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", opted_out)
        for to in spellings:
            (job,) = queue(fleet, phone, ["an offer"], to)
            assert fleet.job(job)["state"] == "opted_out", to
    for to in NEVER:
        with pytest.raises(psycopg.errors.CheckViolation, match="phone number"):
            queue(fleet, phone, ["an offer"], to)

    # A STOP without a number, from somebody who was written to: the number is on the list.
    await fleet.job_is(fleet.send(phone, "first", known), "sent")
    control.write(phone.name, known, "stop", hidden=True)
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", known))
    (listed,) = fleet.rows("SELECT source, words, note FROM shardd.opt_outs WHERE address = %s", known)
    assert (listed["source"], listed["words"]) == ("message", "stop")
    assert fleet.job(fleet.send(phone, "an offer", known))["state"] == "opted_out"

    # From somebody whose number no session knows: it turns out right before the message would leave.
    control.write(phone.name, hidden, "stop", hidden=True)
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", str(lid_jid(hidden))))
    await fleet.job_is(fleet.send(phone, "an offer", hidden), "opted_out")
    assert fleet.job(fleet.send(phone, "an offer", hidden))["state"] == "opted_out", "known at its INSERT from now on"

    # From somebody whose number only the session store knows.
    with psycopg.connect(sessions_dsn(fleet.dsn), autocommit=True) as store:
        lid = lid_jid(stored).user
        store.execute("INSERT INTO whatsmeow_lid_map (lid, pn) VALUES (%s, %s)", [lid, stored])
    control.write(phone.name, stored, "stop", hidden=True)
    await fleet.until(lambda: fleet.rows("SELECT 1 FROM shardd.opt_outs WHERE address = %s", stored))

    # The directory lists one number under another, and that one opted out.
    control.listed_as({dialled: listed_number})
    fleet.rows("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", f"+{listed_number}")
    await fleet.job_is(fleet.send(phone, "an offer", dialled), "opted_out")
    assert fleet.job(fleet.send(phone, "an offer", dialled))["state"] == "opted_out"

    # A number that opted out, written to by its LID.
    (job,) = queue(fleet, phone, ["an offer"], f"{lid_jid(known)}")
    assert fleet.job(job)["state"] == "opted_out"

    await fleet.job_is(fleet.send(phone, "to another", proof), "sent")
    assert await daemon.stop() == 0
    assert [(message.recipient, message.text) for message in control.messages()] == [
        (known, "first"),
        (proof, "to another"),
    ]
