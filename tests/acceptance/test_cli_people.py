"""What was written to and by one person, however their number is spelled: `shardd job list` and `shardd inbox list`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Command
from tests.support.daemon import Producer

GERMAN = "+4917100000055"
MEXICAN = "+5215587654321"
"""As WhatsApp lists it; its owner writes +52 55 8765 4321."""
BRAZILIAN = "+5511987654321"
HIDDEN = "770012345678@lid"


@pytest.fixture
def shardd(config_file: Path) -> Command:
    with config_file.open("a") as file:
        file.write("transports: {whatsapp: {default_region: DE}}\n")
    return Command(config_file)


async def test_jobs_and_messages_of_a_person_are_found_by_every_spelling(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    jobs, messages = {}, {}
    for number in (GERMAN, MEXICAN, BRAZILIAN):
        ((jobs[number],),) = producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', %s, 'hello') RETURNING id", number
        )
        ((messages[number],),) = producer.execute(
            "INSERT INTO shardd.messages (device_id, message_id, sender, number, lid, own, status, kind, text, opt_out, "
            "written_at) VALUES ('d1', 'm', %s, %s, %s, false, false, 'text', 'hi', false, now()) RETURNING id",
            *(number, number, HIDDEN if number == GERMAN else None),
        )
    await shardd("job", "cancel", str(jobs[MEXICAN]))  # it is in the archive

    async def sent(spelling: str) -> list[int]:
        return [one["id"] for one in (await shardd("job", "list", "--recipient", spelling, "--json")).json]

    async def wrote(spelling: str) -> list[int]:
        return [one["id"] for one in (await shardd("inbox", "list", "--from", spelling, "--json")).json]

    for spelling in ("004917100000055", "0171 00000055", "4917100000055@c.us"):
        assert await wrote(spelling) == [messages[GERMAN]], spelling
    assert await wrote(HIDDEN) == [messages[GERMAN]]
    assert await sent("0171 00000055") == [jobs[GERMAN]]
    for spelling, number in (("+525587654321", MEXICAN), ("+55 (11) 8765-4321", BRAZILIAN)):
        assert (await sent(spelling), await wrote(spelling)) == ([jobs[number]], [messages[number]]), spelling


async def test_what_is_nobody_is_said(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    for command in (("inbox", "list", "--from"), ("job", "list", "--recipient")):
        refused = await shardd(*command, "bob")
        assert refused.code == 64
        assert refused.err == "shardd: recipient 'bob' is not a phone number: write it as +4915112345678\n"
    group = await shardd("inbox", "list", "--from", "120363012345678@g.us")
    assert (group.code, "is a group, not a person" in group.err) == (64, True)
    for kind in ("inbox", "job"):
        unknown = await shardd(kind, "list", "--device=nosuch")
        assert (unknown.code, "device nosuch is unknown" in unknown.err) == (64, True)
    assert (await shardd("inbox", "list", "--device=d1")).out == "no messages\n"
